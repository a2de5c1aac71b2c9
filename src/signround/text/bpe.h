// Byte pair encoding: a piece starts as its characters (or bytes); the neighbouring pair of the
// lowest rank merges, the leftmost first, until no pair has a rank.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "signround/text/token_model.h"

namespace signround {

// Pairs of ids that merge: open addressing, one cache line holds four pairs.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = kNone;
    int32_t id = -1;
  };
  static constexpr uint32_t kNone = 0xFFFFFFFFu;

  void reserve(size_t merges);
  void set(int32_t left, int32_t right, Merge merge);  // replaces an earlier merge of the same pair
  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = place(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].key == kEmpty) return {};
    }
  }

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull) >> shift_; }

  std::vector<Slot> slots_ = std::vector<Slot>(1);
  size_t mask_ = 0;
  int shift_ = 63;
};

class Bpe : public TokenModel {
 public:
  Bpe(const nlohmann::json& config, std::vector<std::string>& notes);
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  bool can_use_bytes() const override {
    return prefix_.empty() && suffix_.empty() && !byte_fallback_;
  }
  void use_bytes() override;
  bool keeps_spaces() const override { return true; }

 private:
  enum Stability : uint8_t { kUnknown, kStable, kUnstable };

  void read_merges(const nlohmann::json& merges);
  void add_merge(std::string_view left, std::string_view right, uint32_t rank);
  void index_characters();
  int32_t character_id(uint32_t cp, std::string_view text) const;
  void encode_part(std::string_view part, bool whole, Scratch& scratch,
                   std::vector<int32_t>& ids) const;
  void encode_characters(std::string_view part, Scratch& scratch) const;
  void encode_bytes(std::string_view part, Scratch& scratch) const;
  void add_unknown(bool* pending, std::vector<int32_t>& ids) const;
  void merge_short(std::string_view part, Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;
  bool may_cut(uint32_t left, uint32_t right) const;

  MergeTable merges_;
  int32_t unknown_id_ = -1;
  std::string unknown_token_;
  bool has_unknown_ = false, fuse_unknown_ = false, ignore_merges_ = false;
  std::string prefix_, suffix_;  // of characters that do not start, or that end, a piece
  bool byte_fallback_ = false, byte_tokens_merge_ = false;
  std::vector<int32_t> fallback_ids_;   // ids of the 256 byte tokens, if all are there
  std::vector<int32_t> character_ids_;  // of the basic multilingual plane

  bool bytes_ = false;  // pieces are raw bytes
  std::array<int32_t, 256> byte_ids_{};
  Vocab words_;                       // with bytes_: the tokens as raw bytes
  std::vector<uint32_t> byte_ranks_;  // with bytes_: ranks of the merges of two bytes, 256 x 256

  // Neighbouring characters that occur together in some token, as a hashed bit set: between any
  // others no merge can reach across, so a long text may be cut there. Empty: never cut.
  std::vector<uint64_t> neighbours_;

  // Whether the merges of a token's text give that token alone, found out when first asked.
  mutable std::unique_ptr<std::atomic<uint8_t>[]> stability_;
};

}  // namespace signround
