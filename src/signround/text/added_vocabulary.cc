#include "signround/text/added_vocabulary.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

bool is_word(uint32_t cp) { return unicode::classes(cp) & unicode::kWord; }
bool is_space(uint32_t cp) { return unicode::classes(cp) & unicode::kSpace; }

bool word_before(std::string_view text, size_t at) {
  return at > 0 && is_word(unicode::decode(unicode::previous(text.data() + at)));
}
bool word_after(std::string_view text, size_t at) {
  return at < text.size() && is_word(unicode::decode(text.data() + at));
}

}  // namespace

void AddedVocabulary::add(const AddedToken& token, const Vocab& model,
                          const Normalizer* normalizer) {
  if (token.content.empty()) return;
  if (unicode::valid_prefix(token.content) != token.content.size())
    fail(ErrorKind::kCorruptFile, "tokenizer added_tokens", "an added token is not valid UTF-8");
  int32_t id = find(token.content);
  if (id < 0) id = model.find(token.content);
  // The reference counts from the number of model tokens, not from the highest id.
  if (id < 0)
    id = std::max(end_id_, static_cast<int32_t>(std::min<int64_t>(model.size(), kMaxTokenId)));
  if (id > kMaxTokenId)
    fail(ErrorKind::kCorruptFile, "tokenizer added_tokens", "there are more than ", kMaxTokenId,
         " tokens");
  std::string normal_form = token.content;
  if (token.normalized && normalizer) {
    NormalizedText t{token.content, true};
    normalizer->apply(t);
    normal_form = std::move(t.text);
  }
  ids_[token.content] = id;
  if (token.special) special_[token.content] = true;
  tokens_[id] = {token, std::move(normal_form), tokens_.size()};
  end_id_ = std::max(end_id_, id + 1);
}

void AddedVocabulary::build() {
  std::vector<std::pair<std::string, int32_t>> raw, normalized;
  std::vector<const std::pair<const int32_t, Entry>*> entries;
  for (const auto& item : tokens_) entries.push_back(&item);
  std::sort(entries.begin(), entries.end(),
            [](const auto* a, const auto* b) { return a->second.order < b->second.order; });
  for (const auto* item : entries) {
    const Entry& e = item->second;
    (e.token.normalized ? normalized : raw)
        .emplace_back(e.token.normalized ? e.normal_form : e.token.content, item->first);
  }
  raw_ = ByteTrie(std::move(raw));
  normalized_ = ByteTrie(std::move(normalized));
}

void AddedVocabulary::split(std::string_view text, bool normalized,
                            std::vector<Part>& parts) const {
  const ByteTrie& trie = normalized ? normalized_ : raw_;
  parts.clear();
  size_t start = 0;      // of the plain text not yet emitted
  size_t space_end = 0;  // of the white space that the last rstrip token took
  for (size_t i = 0; !trie.empty() && i < text.size();) {
    if (!trie.may_start(text[i])) {
      ++i;
      continue;
    }
    size_t length = 0;
    int32_t id = -1;
    trie.prefixes(text.substr(i), [&](size_t n, int32_t value) {
      length = n;
      id = value;
    });
    if (id < 0) {
      ++i;
      continue;
    }
    size_t begin = i, end = i + length;
    i = end;
    const AddedToken& token = tokens_.at(id).token;
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) continue;
    if (token.lstrip) {
      while (begin > start) {
        const char* p = unicode::previous(text.data() + begin);
        if (!is_space(unicode::decode(p))) break;
        begin = static_cast<size_t>(p - text.data());
      }
      begin = std::max(begin, start);
    }
    if (token.rstrip) {
      // A token of white space may match again inside what the last one took: the same run is not
      // walked twice.
      size_t run = end < space_end ? space_end : end;
      while (run < text.size() && is_space(unicode::decode(text.data() + run)))
        run += unicode::sequence_length(static_cast<unsigned char>(text[run]));
      end = space_end = run;
    }
    if (start < begin) parts.push_back({start, begin, -1});
    parts.push_back({begin, end, id});
    start = end;
  }
  if (start != text.size()) parts.push_back({start, text.size(), -1});
}

int32_t AddedVocabulary::find(std::string_view content) const {
  const auto it = ids_.find(std::string(content));
  return it == ids_.end() ? -1 : it->second;
}

const AddedToken* AddedVocabulary::token(int32_t id) const {
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second.token;
}

const std::string* AddedVocabulary::decoded(int32_t id) const {
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second.normal_form;
}

bool AddedVocabulary::is_special_content(std::string_view content) const {
  return special_.count(std::string(content)) > 0;
}

}  // namespace signround
