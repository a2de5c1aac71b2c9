#include "signround/io/parquet_encoding.h"

#include <algorithm>
#include <limits>

#include "signround/base/error.h"

namespace signround::parquet {

void PageBytes::corrupt(const std::string& what) const {
  fail(ErrorKind::kCorruptFile, "parquet", *place_, ": ", what);
}

std::span<const std::byte> PageBytes::take(uint64_t size) {
  if (size > bytes_.size())
    corrupt("a page needs " + std::to_string(size) + " bytes more and has " +
            std::to_string(bytes_.size()));
  const auto out = bytes_.first(size);
  bytes_ = bytes_.subspan(size);
  return out;
}

uint64_t PageBytes::take_little_endian(int bytes) {
  uint64_t value = 0;
  const auto from = take(static_cast<uint64_t>(bytes));
  for (int i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(from[i]) << (8 * i);
  return value;
}

uint64_t PageBytes::take_varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(take(1)[0]);
    if (shift == 63 && byte > 1) break;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  corrupt("a number has more than 64 bits");
}

void RleReader::start_run() {
  const uint64_t header = bytes_.take_varint();
  packed_ = header & 1;
  left_ = header >> 1;
  if (packed_) {
    if (left_ > std::numeric_limits<uint64_t>::max() / 8)
      bytes_.corrupt("a run of too many values");
    left_ *= 8;
    bits_ = 0, bit_count_ = 0;
  } else {
    value_ = static_cast<uint32_t>(bytes_.take_little_endian((width_ + 7) / 8));
    if (width_ < 32 && value_ >> width_) bytes_.corrupt("a run's value is wider than its bits");
  }
}

uint32_t RleReader::next() {
  if (width_ == 0 && left_ == 0 && bytes_.rest().empty())
    return 0;  // some writers store nothing then
  while (left_ == 0) start_run();
  --left_;
  if (!packed_) return value_;
  while (bit_count_ < width_) {
    bits_ |= bytes_.take_little_endian(1) << bit_count_;
    bit_count_ += 8;
  }
  const auto value = static_cast<uint32_t>(bits_ & ((uint64_t{1} << width_) - 1));
  bits_ >>= width_;
  bit_count_ -= width_;
  return value;
}

namespace {

int64_t zigzag(uint64_t value) { return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1)); }

// `count` numbers of `width` bits (0 to 64), least significant bit first, from whole bytes.
void unpack(std::span<const std::byte> from, int width, size_t count, uint64_t* out) {
  size_t bit = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t value = 0;
    for (int done = 0; done < width;) {
      const int offset = static_cast<int>(bit % 8), n = std::min(8 - offset, width - done);
      const uint64_t part = (static_cast<uint64_t>(from[bit / 8]) >> offset) & ((1u << n) - 1);
      value |= part << done;
      done += n;
      bit += static_cast<size_t>(n);
    }
    out[i] = value;
  }
}

}  // namespace

// Header: block size, miniblocks per block, count, first value. Block: least delta, a width per
// miniblock, miniblocks.
std::vector<int64_t> read_delta_packed(PageBytes& bytes, int64_t most) {
  const uint64_t block = bytes.take_varint(), miniblocks = bytes.take_varint(),
                 count = bytes.take_varint();
  const int64_t first = zigzag(bytes.take_varint());
  if (block == 0 || block % 128 != 0 || block > (1u << 20) || miniblocks == 0 ||
      block % miniblocks != 0 || (block / miniblocks) % 32 != 0)
    bytes.corrupt("delta blocks of " + std::to_string(block) + " values in " +
                  std::to_string(miniblocks));
  if (count > static_cast<uint64_t>(most))
    bytes.corrupt(std::to_string(count) + " delta values, at most " + std::to_string(most) +
                  " expected");
  std::vector<int64_t> values;
  if (count == 0) return values;
  const size_t size = block / miniblocks;
  std::vector<uint64_t> deltas(size);
  uint64_t value = static_cast<uint64_t>(first);  // unsigned: deltas wrap around
  values.push_back(first);
  while (values.size() < count) {
    const auto least = static_cast<uint64_t>(zigzag(bytes.take_varint()));
    const auto widths = bytes.take(miniblocks);
    for (size_t m = 0; m < miniblocks && values.size() < count; ++m) {
      const int width = static_cast<int>(widths[m]);
      if (width > 64) bytes.corrupt("a delta of " + std::to_string(width) + " bits");
      unpack(bytes.take(size * static_cast<size_t>(width) / 8), width, size, deltas.data());
      for (size_t i = 0; i < size && values.size() < count; ++i) {
        value += least + deltas[i];
        values.push_back(static_cast<int64_t>(value));
      }
    }
  }
  return values;
}

namespace {

std::string_view view(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// 4 bytes of length, then the string.
class PlainReader : public StringReader {
 public:
  explicit PlainReader(PageBytes bytes) : bytes_(bytes) {}
  std::string_view next() override { return view(bytes_.take(bytes_.take_little_endian(4))); }

 private:
  PageBytes bytes_;
};

class DictionaryReader : public StringReader {
 public:
  DictionaryReader(PageBytes bytes, const std::vector<std::string_view>& dictionary)
      : bytes_(bytes), indices_{after_width(bytes), width_}, dictionary_(dictionary) {}
  std::string_view next() override {
    const uint32_t index = indices_.next();
    if (index >= dictionary_.size())
      bytes_.corrupt("entry " + std::to_string(index) + " of a dictionary of " +
                     std::to_string(dictionary_.size()));
    return dictionary_[index];
  }

 private:
  PageBytes after_width(PageBytes bytes) {
    // A page of nulls only may have no bytes at all.
    width_ = bytes.rest().empty() ? 0 : static_cast<int>(bytes.take_little_endian(1));
    if (width_ > 32) bytes.corrupt("dictionary indices of " + std::to_string(width_) + " bits");
    return bytes;
  }

  int width_ = 0;  // set while indices_ is made: braces evaluate from left to right
  PageBytes bytes_;
  RleReader indices_;
  const std::vector<std::string_view>& dictionary_;
};

// All lengths, then all strings.
class DeltaLengthReader : public StringReader {
 public:
  DeltaLengthReader(PageBytes& bytes, int64_t values)
      : lengths_(read_delta_packed(bytes, values)), bytes_(bytes) {}
  std::string_view next() override {
    if (at_ >= lengths_.size()) bytes_.corrupt("fewer strings than values");
    const int64_t length = lengths_[at_++];
    if (length < 0) bytes_.corrupt("a string of " + std::to_string(length) + " bytes");
    return view(bytes_.take(static_cast<uint64_t>(length)));
  }

 private:
  std::vector<int64_t> lengths_;
  PageBytes bytes_;
  size_t at_ = 0;
};

// Lengths of the part shared with the string before, then the rest of each as
// DELTA_LENGTH_BYTE_ARRAY.
class DeltaStringReader : public StringReader {
 public:
  DeltaStringReader(PageBytes& bytes, int64_t values)
      : bytes_(bytes), shared_(read_delta_packed(bytes, values)), rest_(bytes, values) {}
  std::string_view next() override {
    if (at_ >= shared_.size()) bytes_.corrupt("fewer strings than values");
    const int64_t shared = shared_[at_++];
    if (shared < 0 || shared > static_cast<int64_t>(last_.size()))
      bytes_.corrupt("a string shares " + std::to_string(shared) + " bytes with one of " +
                     std::to_string(last_.size()));
    last_.resize(static_cast<size_t>(shared));
    last_ += rest_.next();
    return last_;
  }

 private:
  PageBytes bytes_;
  std::vector<int64_t> shared_;
  DeltaLengthReader rest_;
  std::string last_;
  size_t at_ = 0;
};

}  // namespace

std::unique_ptr<StringReader> make_string_reader(Encoding encoding, PageBytes bytes, int64_t values,
                                                 const std::vector<std::string_view>* dictionary) {
  switch (encoding) {
    case Encoding::kPlain:
      return std::make_unique<PlainReader>(bytes);
    case Encoding::kPlainDictionary:
    case Encoding::kRleDictionary:
      if (!dictionary) bytes.corrupt("a page refers to a dictionary that is not there");
      return std::make_unique<DictionaryReader>(bytes, *dictionary);
    case Encoding::kDeltaLengthByteArray:
      return std::make_unique<DeltaLengthReader>(bytes, values);
    case Encoding::kDeltaByteArray:
      return std::make_unique<DeltaStringReader>(bytes, values);
    default:
      bytes.corrupt("strings in encoding " + std::to_string(static_cast<int>(encoding)));
  }
}

}  // namespace signround::parquet
