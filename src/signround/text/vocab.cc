#include "signround/text/vocab.h"

#include <cstring>

#include "signround/base/error.h"

namespace signround {

const Vocab::Slot* Vocab::slot_of(std::string_view token, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& s = slots_[i];
    if (s.id < 0) return &s;
    if (s.hash == hash && static_cast<size_t>(s.length) == token.size() &&
        std::memcmp(arena_.data() + s.offset, token.data(), token.size()) == 0)
      return &s;
  }
}

void Vocab::grow() {
  std::vector<Slot> old(slots_.empty() ? 256 : slots_.size() * 2);
  old.swap(slots_);
  const size_t mask = slots_.size() - 1;
  for (const Slot& s : old) {
    if (s.id < 0) continue;
    size_t i = s.hash & mask;
    while (slots_[i].id >= 0) i = (i + 1) & mask;
    slots_[i] = s;
  }
}

void Vocab::add(std::string_view token, int64_t id) {
  if (id < 0 || id > kMaxTokenId)
    fail(ErrorKind::kCorruptFile, "vocab", "token \"", excerpt(token), "\" has id ", id,
         ", expected 0 to ", kMaxTokenId);
  if (static_cast<size_t>(count_) * 2 >= slots_.size()) grow();
  const auto hash = static_cast<uint32_t>(short_hash(token));
  Slot& slot = const_cast<Slot&>(*slot_of(token, hash));
  if (slot.id < 0) {
    slot.hash = hash;
    slot.offset = static_cast<int64_t>(arena_.size());
    slot.length = static_cast<int64_t>(token.size());
    arena_ += token;
    ++count_;
    longest_ = std::max(longest_, token.size());
  }
  slot.id = static_cast<int32_t>(id);
  if (static_cast<size_t>(id) >= spans_.size()) spans_.resize(static_cast<size_t>(id) + 1);
  spans_[static_cast<size_t>(id)] = {slot.offset, static_cast<int32_t>(slot.length)};
}

int32_t Vocab::find(std::string_view token) const {
  return slots_.empty() ? -1 : slot_of(token, static_cast<uint32_t>(short_hash(token)))->id;
}

std::string_view Vocab::token(int32_t id) const {
  if (!has(id)) return {};
  const Span& s = spans_[static_cast<size_t>(id)];
  return {arena_.data() + s.offset, static_cast<size_t>(s.length)};
}

}  // namespace signround
