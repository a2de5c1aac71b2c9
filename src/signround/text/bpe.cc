#include "signround/text/bpe.h"

#include <algorithm>
#include <bit>

#include "signround/base/error.h"
#include "signround/text/byte_level.h"
#include "signround/text/json_field.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer model BPE";
constexpr size_t kNeighbourBits = size_t{1} << 20;
constexpr size_t kShort = 160;  // symbols up to which scanning all ranks beats a heap

size_t neighbour_bit(uint32_t left, uint32_t right) {
  return ((uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15ull) >> 44;
}

}  // namespace

void MergeTable::reserve(size_t merges) {
  const size_t size = std::bit_ceil(merges * 5 / 3 + 2);
  slots_.assign(size, {});
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  size_t i = place(key);
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
  slots_[i] = {key, merge};
}

Bpe::Bpe(const nlohmann::json& config, std::vector<std::string>& notes) {
  const auto* vocab = find_field(config, "vocab");
  const auto* merges = find_field(config, "merges");
  if (!vocab || !merges)
    fail(ErrorKind::kCorruptFile, kWhere, "it has no ", vocab ? "merges" : "vocab");
  read_vocab(*vocab, kWhere, vocab_);
  if (const auto* dropout = find_field(config, "dropout"); dropout && *dropout != 0.0)
    notes.push_back("the tokenizer's BPE dropout is ignored: the encoding is always the best one");
  has_unknown_ = find_field(config, "unk_token") != nullptr;
  if (has_unknown_) {
    unknown_token_ = string_field(config, "unk_token", kWhere);
    unknown_id_ = vocab_.find(unknown_token_);
  }
  fuse_unknown_ = bool_field(config, "fuse_unk", false, kWhere);
  ignore_merges_ = bool_field(config, "ignore_merges", false, kWhere);
  prefix_ = string_field(config, "continuing_subword_prefix", "", kWhere);
  suffix_ = string_field(config, "end_of_word_suffix", "", kWhere);
  byte_fallback_ = bool_field(config, "byte_fallback", false, kWhere);
  if (byte_fallback_) fallback_ids_ = byte_fallback_ids(vocab_);
  read_merges(*merges);
  index_characters();
  stability_ = std::make_unique<std::atomic<uint8_t>[]>(static_cast<size_t>(vocab_.end_id()));
}

void Bpe::read_merges(const nlohmann::json& merges) {
  if (!merges.is_array())
    fail(ErrorKind::kCorruptFile, kWhere, "merges is ", merges.type_name(), ", expected a list");
  merges_.reserve(merges.size());
  uint32_t rank = 0;
  size_t line = 0;
  for (const auto& merge : merges) {
    ++line;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      add_merge(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(),
                rank++);
      continue;
    }
    if (!merge.is_string())
      fail(ErrorKind::kCorruptFile, kWhere, "merge ", line, " is not a pair of tokens");
    const std::string_view text = merge.get_ref<const std::string&>();
    if (text.substr(0, 8) == "#version") continue;
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      fail(ErrorKind::kCorruptFile, kWhere, "merge ", line, " is \"", excerpt(text),
           "\", expected two tokens and a space");
    add_merge(text.substr(0, space), text.substr(space + 1), rank++);
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right, uint32_t rank) {
  const int32_t a = vocab_.find(left), b = vocab_.find(right);
  if (right.size() < prefix_.size())
    fail(ErrorKind::kCorruptFile, kWhere, "merge ", rank + 1, ": \"", right,
         "\" is shorter than the prefix of continuing tokens");
  const std::string joined = std::string(left) + std::string(right.substr(prefix_.size()));
  const int32_t both = vocab_.find(joined);
  if (a < 0 || b < 0 || both < 0)
    fail(ErrorKind::kCorruptFile, kWhere, "merge ", rank + 1, ": \"",
         a < 0   ? left
         : b < 0 ? right
                 : std::string_view(joined),
         "\" is not in the vocabulary");
  const auto is_byte_token = [](std::string_view token) {
    return token.size() == 6 && token.substr(0, 3) == "<0x";
  };
  byte_tokens_merge_ = byte_tokens_merge_ || is_byte_token(left) || is_byte_token(right);
  merges_.set(a, b, {rank, both});
}

// Direct tables for characters, and which neighbours never merge. A cut must not change what the
// reference does with unknown characters or affixes, so without full byte fallback only known
// characters may follow a cut.
void Bpe::index_characters() {
  character_ids_.assign(0x10000, -1);
  for (uint32_t cp = 0; cp < 0x10000; ++cp)
    if (cp < 0xD800 || cp > 0xDFFF) character_ids_[cp] = vocab_.find(unicode::encode(cp));
  if (!prefix_.empty() || !suffix_.empty() || byte_tokens_merge_ ||
      (byte_fallback_ && fallback_ids_.empty()))
    return;
  neighbours_.assign(kNeighbourBits / 64, 0);
  for (int32_t id = 0; id < vocab_.end_id(); ++id) {
    const std::string_view token = vocab_.token(id);
    uint32_t last = 0;
    for (size_t i = 0; i < token.size();
         i += unicode::sequence_length(static_cast<unsigned char>(token[i]))) {
      const uint32_t cp = unicode::decode(token.data() + i);
      if (i > 0)
        neighbours_[neighbour_bit(last, cp) / 64] |= uint64_t{1} << (neighbour_bit(last, cp) % 64);
      last = cp;
    }
  }
}

void Bpe::use_bytes() {
  bytes_ = true;
  byte_ranks_.assign(0x10000, MergeTable::kNone);
  for (unsigned b = 0; b < 256; ++b)
    byte_ids_[b] = character_ids_[byte_to_char(static_cast<unsigned char>(b))];
  for (unsigned a = 0; a < 256; ++a)
    for (unsigned b = 0; b < 256; ++b)
      if (byte_ids_[a] >= 0 && byte_ids_[b] >= 0)
        byte_ranks_[a << 8 | b] = merges_.find(byte_ids_[a], byte_ids_[b]).rank;
  std::string raw;
  for (int32_t id = 0; id < vocab_.end_id(); ++id) {
    raw.clear();
    if (vocab_.has(id) && append_char_bytes(raw, vocab_.token(id))) words_.add(raw, id);
  }
}

bool Bpe::may_cut(uint32_t left, uint32_t right) const {
  const size_t bit = neighbour_bit(left, right);
  if (neighbours_[bit / 64] >> (bit % 64) & 1) return false;
  return !has_unknown_ || !fallback_ids_.empty() || (right < 0x10000 && character_ids_[right] >= 0);
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (bytes_ || neighbours_.empty()) return encode_part(piece, true, scratch, ids);
  if (ignore_merges_) {
    if (const int32_t id = vocab_.find(piece); id >= 0) return ids.push_back(id);
  }
  size_t begin = 0;
  uint32_t last = unicode::decode(piece.data());
  for (size_t i = unicode::sequence_length(static_cast<unsigned char>(piece[0]));
       i < piece.size();) {
    const uint32_t cp = unicode::decode(piece.data() + i);
    if (may_cut(last, cp)) {
      encode_part(piece.substr(begin, i - begin), false, scratch, ids);
      begin = i;
    }
    last = cp;
    i += unicode::sequence_length(static_cast<unsigned char>(piece[i]));
  }
  encode_part(piece.substr(begin), false, scratch, ids);
}

// `whole`: the part is a whole piece, which ignore_merges may take as it is.
void Bpe::encode_part(std::string_view part, bool whole, Scratch& scratch,
                      std::vector<int32_t>& ids) const {
  const Vocab& words = bytes_ ? words_ : vocab_;
  const int32_t word = part.size() <= words.longest() ? words.find(part) : -1;
  if (word >= 0) {
    if (whole && ignore_merges_) return ids.push_back(word);
    if (stability_[static_cast<size_t>(word)].load(std::memory_order_relaxed) == kStable)
      return ids.push_back(word);
  }
  scratch.ids.clear();
  if (bytes_)
    encode_bytes(part, scratch);
  else
    encode_characters(part, scratch);
  if (scratch.ids.size() > kShort)
    merge_long(scratch);
  else if (scratch.ids.size() > 1)
    merge_short(part, scratch);
  if (word >= 0) {
    const bool stable = scratch.ids.size() == 1 && scratch.ids[0] == word;
    stability_[static_cast<size_t>(word)].store(stable ? kStable : kUnstable,
                                                std::memory_order_relaxed);
  }
  ids.insert(ids.end(), scratch.ids.begin(), scratch.ids.end());
}

int32_t Bpe::character_id(uint32_t cp, std::string_view text) const {
  return cp < 0x10000 ? character_ids_[cp] : vocab_.find(text);
}

// An unknown character waits until the next known one, so that several can become one token.
void Bpe::add_unknown(bool* pending, std::vector<int32_t>& ids) const {
  if (!has_unknown_) return;
  if (unknown_id_ < 0)
    fail(ErrorKind::kCorruptFile, kWhere, "the unknown token \"", unknown_token_,
         "\" is needed but not in the vocabulary");
  if (*pending && !fuse_unknown_) ids.push_back(unknown_id_);
  *pending = true;
}

void Bpe::encode_characters(std::string_view part, Scratch& scratch) const {
  std::vector<int32_t>& out = scratch.ids;
  bool pending = false;
  const bool affixes = !prefix_.empty() || !suffix_.empty();
  for (size_t i = 0; i < part.size();) {
    const size_t n = unicode::sequence_length(static_cast<unsigned char>(part[i]));
    std::string_view text = part.substr(i, n);
    int32_t id = -1;
    if (affixes) {
      scratch.text.assign(i > 0 ? prefix_ : std::string());
      scratch.text += text;
      if (i + n == part.size()) scratch.text += suffix_;
      text = scratch.text;
      id = vocab_.find(text);
    } else {
      id = character_id(unicode::decode(part.data() + i), text);
    }
    i += n;
    if (id >= 0) {
      if (pending) out.push_back(unknown_id_);
      pending = false;
      out.push_back(id);
      continue;
    }
    if (byte_fallback_) {
      const size_t start = out.size();
      bool all = true;
      for (const char c : text) {
        static constexpr char kHex[] = "0123456789ABCDEF";
        const auto byte = static_cast<unsigned char>(c);
        const char name[] = {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
        const int32_t b = fallback_ids_.empty() ? vocab_.find({name, 6}) : fallback_ids_[byte];
        all = all && b >= 0;
        out.push_back(b);
      }
      if (all) continue;
      out.resize(start);
    }
    add_unknown(&pending, out);
  }
  if (pending) out.push_back(unknown_id_);
}

void Bpe::encode_bytes(std::string_view part, Scratch& scratch) const {
  std::vector<int32_t>& out = scratch.ids;
  bool pending = false;
  for (const char c : part) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id < 0) {
      add_unknown(&pending, out);
      continue;
    }
    if (pending) out.push_back(unknown_id_);
    pending = false;
    out.push_back(id);
  }
  if (pending) out.push_back(unknown_id_);
}

// Scans the ranks of all pairs for each merge: quadratic, but in one or two cache lines.
void Bpe::merge_short(std::string_view part, Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  size_t n = ids.size();
  uint32_t ranks[kShort];
  const bool byte_pairs = bytes_ && n == part.size();
  for (size_t i = 0; i + 1 < n; ++i)
    ranks[i] = byte_pairs ? byte_ranks_[static_cast<unsigned char>(part[i]) << 8 |
                                        static_cast<unsigned char>(part[i + 1])]
                          : merges_.find(ids[i], ids[i + 1]).rank;
  while (n > 1) {
    uint32_t best = MergeTable::kNone;
    for (size_t i = 0; i + 1 < n; ++i) best = std::min(best, ranks[i]);
    if (best == MergeTable::kNone) break;
    size_t at = 0;
    while (ranks[at] != best) ++at;
    ids[at] = merges_.find(ids[at], ids[at + 1]).id;
    std::copy(ids.begin() + static_cast<int64_t>(at) + 2, ids.begin() + static_cast<int64_t>(n),
              ids.begin() + static_cast<int64_t>(at) + 1);
    std::copy(ranks + at + 1, ranks + n - 1, ranks + at);
    --n;
    if (at > 0) ranks[at - 1] = merges_.find(ids[at - 1], ids[at]).rank;
    if (at + 1 < n) ranks[at] = merges_.find(ids[at], ids[at + 1]).rank;
  }
  ids.resize(n);
}

// A heap of (rank, place) over a linked list of symbols; an entry whose pair has changed since is
// skipped.
void Bpe::merge_long(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  const auto n = static_cast<uint32_t>(ids.size());
  auto &next = scratch.next, &previous = scratch.previous, &ranks = scratch.ranks;
  auto& heap = scratch.heap;
  next.resize(n);
  previous.resize(n);
  ranks.assign(n, MergeTable::kNone);
  heap.clear();
  const auto pair_rank = [&](uint32_t i) {
    return next[i] < n ? merges_.find(ids[i], ids[next[i]]).rank : MergeTable::kNone;
  };
  for (uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (uint32_t i = 0; i + 1 < n; ++i) {
    ranks[i] = pair_rank(i);
    if (ranks[i] != MergeTable::kNone) heap.push_back(uint64_t{ranks[i]} << 32 | i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto update = [&](uint32_t i) {
    ranks[i] = pair_rank(i);
    if (ranks[i] == MergeTable::kNone) return;
    heap.push_back(uint64_t{ranks[i]} << 32 | i);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto i = static_cast<uint32_t>(top);
    if (ids[i] < 0 || ranks[i] != static_cast<uint32_t>(top >> 32)) continue;
    const uint32_t right = next[i];
    ids[i] = merges_.find(ids[i], ids[right]).id;
    ids[right] = -1;
    ranks[right] = MergeTable::kNone;
    next[i] = next[right];
    if (next[i] < n) previous[next[i]] = i;
    update(i);
    if (i > 0) update(previous[i]);
  }
  ids.erase(std::remove(ids.begin(), ids.end(), -1), ids.end());
}

}  // namespace signround
