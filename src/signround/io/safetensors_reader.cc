#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <unordered_set>

#include "signround/base/error.h"
#include "signround/io/safetensors.h"

namespace signround {
namespace {

constexpr const char* kWhere = "safetensors";
constexpr int64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr size_t kMaxDims = 32;

// Reads the header for nlohmann's parser and remembers how far it came, for error messages.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at = nullptr;
  const char** reached = nullptr;

  reference operator*() const { return *at; }
  CountingIterator& operator++() {
    ++at;
    if (reached) *reached = at;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at == other.at; }
};

struct Entry {
  TensorInfo info;
  int64_t begin = 0, end = 0;  // in the data behind the header
  int64_t header_offset = 0;   // in the file, where the entry ends
};

// The header's grammar as events of the JSON parser: no document is built, nothing is allocated
// that is not needed.
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderParser(const std::filesystem::path& path, std::span<const char> header)
      : path_(path), header_(header) {}

  void parse() {
    if (header_.empty() || header_.front() != '{') refuse("the header does not begin with {");
    const CountingIterator begin{header_.data(), &reached_},
        end{header_.data() + header_.size(), nullptr};
    reached_ = header_.data();
    nlohmann::json::sax_parse(begin, end, this);
  }
  std::vector<Entry> entries;
  SafetensorsMetadata metadata;

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(ErrorKind::kCorruptFile, kWhere, path_.string(), ": at byte ", position(), ": ", parts...);
  }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        if (key_ == "__metadata__") {
          place_ = Place::kMetadata;
        } else {
          place_ = Place::kTensor;
          entries.emplace_back().info.name = key_;
          has_dtype_ = has_shape_ = has_offsets_ = false;
        }
        return true;
      default:
        refuse("unexpected object in the entry of ", name());
    }
  }
  bool key(std::string& key) override {
    const bool is_new = place_ == Place::kTop      ? names_.insert(key).second
                        : place_ == Place::kTensor ? !*field(key)
                                                   : !metadata.contains(key);
    if (!is_new)
      refuse("the key \"", key, "\" comes twice", place_ == Place::kTop ? "" : " in the entry of ",
             place_ == Place::kTop ? "" : name());
    key_ = key;
    return true;
  }
  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (!has_dtype_ || !has_shape_ || !has_offsets_)
        refuse("the entry of ", name(), " lacks dtype, shape or data_offsets");
      entries.back().header_offset = position();
      place_ = Place::kTop;
    } else if (place_ == Place::kMetadata) {
      place_ = Place::kTop;
    }
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype")
      refuse("unexpected array in the entry of ", name());
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    offsets_read_ = 0;
    return true;
  }
  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_read_ != 2)
      refuse("data_offsets of ", name(), " has ", offsets_read_, " numbers, expected 2");
    (place_ == Place::kShape ? has_shape_ : has_offsets_) = true;
    place_ = Place::kTensor;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets)
      refuse("unexpected number in the entry of ", name());
    if (value > static_cast<uint64_t>(INT64_MAX))
      refuse("the number ", value, " in the entry of ", name(), " is too large");
    Entry& entry = entries.back();
    if (place_ == Place::kShape) {
      if (entry.info.shape.size() == kMaxDims)
        refuse("the shape of ", name(), " has more than ", kMaxDims, " dimensions");
      entry.info.shape.push_back(static_cast<int64_t>(value));
    } else {
      if (offsets_read_ == 2) refuse("data_offsets of ", name(), " has more than 2 numbers");
      (offsets_read_++ == 0 ? entry.begin : entry.end) = static_cast<int64_t>(value);
    }
    return true;
  }
  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) {
      metadata.emplace(key_, value);
    } else if (place_ == Place::kTensor && key_ == "dtype") {
      const auto dtype = dtype_from_name(value);
      if (!dtype)
        fail(ErrorKind::kUnsupported, kWhere, path_.string(), ": tensor ", name(), " has dtype ",
             excerpt(value, 32), ", which this program does not read");
      entries.back().info.dtype = *dtype;
      has_dtype_ = true;
    } else {
      refuse("unexpected string in the entry of ", name());
    }
    return true;
  }
  bool number_integer(int64_t value) override {
    refuse("negative number ", value, " in the entry of ", name());
  }
  bool number_float(double, const std::string& text) override {
    refuse("the number ", excerpt(text, 32), " in the entry of ", name(), " is not an integer");
  }
  bool null() override { refuse("unexpected null in the entry of ", name()); }
  bool boolean(bool) override { refuse("unexpected boolean in the entry of ", name()); }
  bool binary(binary_t&) override { refuse("unexpected binary value"); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    refuse("the header is not valid JSON: ", excerpt(error.what(), 300));
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };

  int64_t position() const { return 8 + (reached_ ? reached_ - header_.data() : 0); }
  std::string name() const {
    const bool in_tensor =
        place_ == Place::kTensor || place_ == Place::kShape || place_ == Place::kOffsets;
    return in_tensor                    ? entries.back().info.name
           : place_ == Place::kMetadata ? "__metadata__"
                                        : key_;
  }
  bool* field(const std::string& key) {
    if (key == "dtype") return &has_dtype_;
    if (key == "shape") return &has_shape_;
    if (key == "data_offsets") return &has_offsets_;
    refuse("unexpected key \"", excerpt(key, 32), "\" in the entry of ", name());
  }

  const std::filesystem::path& path_;
  std::span<const char> header_;
  const char* reached_ = nullptr;
  Place place_ = Place::kStart;
  std::string key_;
  std::unordered_set<std::string> names_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  int offsets_read_ = 0;
};

// numel * size, refusing what does not fit 63 bits on the way (also where a later dimension is 0).
std::optional<int64_t> checked_bytes(const TensorInfo& info) {
  int64_t bytes = size_of(info.dtype);
  for (int64_t dim : info.shape)
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  return bytes;
}

void check_extents(const std::filesystem::path& path, std::vector<Entry>& entries,
                   int64_t data_bytes) {
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t expected = 0;
  for (const Entry& e : entries) {
    const auto refuse = [&](const auto&... parts) {
      fail(ErrorKind::kCorruptFile, kWhere, path.string(), ": header entry before byte ",
           e.header_offset, ": tensor ", e.info.name, " ", parts...);
    };
    if (e.begin > e.end) refuse("ends at ", e.end, ", before it begins at ", e.begin);
    if (e.end > data_bytes)
      refuse("ends at byte ", e.end, " of the data, but the file holds only ", data_bytes,
             ": is it complete?");
    const auto bytes = checked_bytes(e.info);
    if (!bytes)
      refuse("has the shape ", shape_text(e.info.shape), ", whose size overflows 63 bits");
    if (*bytes != e.end - e.begin)
      refuse("has ", e.end - e.begin, " bytes, but ", name_of(e.info.dtype), " of shape ",
             shape_text(e.info.shape), " needs ", *bytes);
    if (e.begin < expected)
      refuse("begins at ", e.begin, ", inside the tensor before it, which ends at ", expected);
    if (e.begin > expected)
      refuse("begins at ", e.begin, ", but the tensor before it ends at ", expected, ": a hole");
    expected = e.end;
  }
  if (expected != data_bytes)
    fail(ErrorKind::kCorruptFile, kWhere, path.string(), ": the tensors end at byte ", expected,
         " of ", data_bytes, " bytes of data");
}

int64_t read_header_length(const MappedFile& file) {
  if (file.size() < 8)
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), " has ", file.size(),
         " bytes, a safetensors file has at least 8");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | static_cast<uint64_t>(file.bytes()[static_cast<size_t>(i)]);
  const uint64_t limit = static_cast<uint64_t>(std::min(kMaxHeader, file.size() - 8));
  if (length > limit)
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(),
         ": at byte 0: the header's length is ", length, ", but at most ", limit,
         " bytes are possible: not a safetensors file, or not complete");
  return static_cast<int64_t>(length);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const int64_t header_bytes = read_header_length(file_);
  const auto* text = reinterpret_cast<const char*>(file_.bytes().data()) + 8;
  HeaderParser parser(file_.path(), {text, static_cast<size_t>(header_bytes)});
  parser.parse();
  const int64_t data_begin = 8 + header_bytes;
  check_extents(file_.path(), parser.entries, file_.size() - data_begin);
  metadata_ = std::move(parser.metadata);
  for (Entry& e : parser.entries) {
    index_.emplace(e.info.name, tensors_.size());
    offsets_.push_back(data_begin + e.begin);
    tensors_.push_back(std::move(e.info));
  }
}

std::optional<size_t> SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  if (found == index_.end()) return std::nullopt;
  return found->second;
}

std::span<const std::byte> SafetensorsFile::bytes(size_t index) const {
  return file_.bytes().subspan(static_cast<size_t>(offsets_.at(index)),
                               static_cast<size_t>(tensors_[index].nbytes()));
}

void SafetensorsFile::release(size_t index) const {
  file_.release(offsets_.at(index), tensors_[index].nbytes());
}

}  // namespace signround
