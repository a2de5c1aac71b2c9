#include "signround/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "signround/base/error.h"
#include "signround/tensor/tensor.h"

namespace signround {
namespace {

constexpr const char* kWhere = "gguf";
constexpr int kMaxDims = 4;
constexpr size_t kMaxTensorName = 63;  // of ggml; with the terminating zero 64
constexpr size_t kMaxKey = 65535;      // of the specification

int64_t size_of_type(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
      return 8;  // at least its length
    case GgufType::kArray:
      return 12;  // at least its type and count
  }
  return 0;
}

template <class T>
T load(std::span<const std::byte> bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

std::optional<int64_t> integer_at(const GgufValue& v, int64_t i) {
  switch (v.type) {
    case GgufType::kU8:
      return load<uint8_t>(v.numbers, i);
    case GgufType::kI8:
      return load<int8_t>(v.numbers, i);
    case GgufType::kU16:
      return load<uint16_t>(v.numbers, i);
    case GgufType::kI16:
      return load<int16_t>(v.numbers, i);
    case GgufType::kU32:
      return load<uint32_t>(v.numbers, i);
    case GgufType::kI32:
      return load<int32_t>(v.numbers, i);
    case GgufType::kI64:
      return load<int64_t>(v.numbers, i);
    case GgufType::kU64: {
      const auto value = load<uint64_t>(v.numbers, i);
      if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> number_at(const GgufValue& v, int64_t i) {
  if (v.type == GgufType::kF32) return load<float>(v.numbers, i);
  if (v.type == GgufType::kF64) return load<double>(v.numbers, i);
  const auto integer = integer_at(v, i);
  if (!integer) return std::nullopt;
  return static_cast<double>(*integer);
}

// For messages: what is not printable ASCII becomes '?', and the length is limited.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, 80));
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

}  // namespace

int64_t GgufTensor::rows() const {
  int64_t n = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

// Reads forward through the file and refuses to read beyond it.
class GgufFile::Cursor {
 public:
  explicit Cursor(const MappedFile& file) : file_(file) {}

  int64_t position() const { return position_; }
  int64_t left() const { return file_.size() - position_; }

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(ErrorKind::kCorruptFile, kWhere, file_.path().string(), ": at byte ", position_, ": ",
         parts...);
  }

  std::span<const std::byte> take(int64_t bytes, const char* what) {
    if (bytes > left())
      refuse(what, " of ", bytes, " bytes, but the file ends after ", left(), ": is it complete?");
    const auto taken =
        file_.bytes().subspan(static_cast<size_t>(position_), static_cast<size_t>(bytes));
    position_ += bytes;
    return taken;
  }

  template <class T>
  T number(const char* what) {
    return load<T>(take(sizeof(T), what), 0);
  }

  // A count of things that take at least `min_bytes` each: what the file cannot hold is refused
  // before it is used.
  int64_t count(int64_t min_bytes, const char* what) {
    const auto value = number<uint64_t>(what);
    if (value > static_cast<uint64_t>(left() / min_bytes))
      refuse(what, " ", value, ", for which the file's remaining ", left(), " bytes are too few");
    return static_cast<int64_t>(value);
  }

  std::string_view string(const char* what) {
    const auto bytes = take(count(1, what), what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  GgufType type() {
    const auto number_of_type = number<uint32_t>("a value's type");
    if (number_of_type > static_cast<uint32_t>(GgufType::kF64))
      refuse("a value of the unknown type ", number_of_type);
    return static_cast<GgufType>(number_of_type);
  }

 private:
  const MappedFile& file_;
  int64_t position_ = 0;
};

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path) {
  Cursor cursor(file_);
  const auto magic = cursor.take(std::min<int64_t>(4, cursor.left()), "the magic");
  if (magic.size() != 4 || std::memcmp(magic.data(), "GGUF", 4) != 0)
    cursor.refuse("this is not a GGUF file");
  version_ = cursor.number<uint32_t>("the version");
  if ((version_ & 0xffffu) == 0)
    fail(ErrorKind::kUnsupported, kWhere, path.string(),
         " is a big-endian GGUF file, only little-endian ones are read");
  if (version_ != 2 && version_ != 3)
    fail(ErrorKind::kUnsupported, kWhere, path.string(), " has GGUF version ", version_,
         ", versions 2 and 3 are read");
  const int64_t tensors =
      cursor.count(24, "a number of tensors");                    // name, dimensions, type, offset
  const int64_t values = cursor.count(13, "a number of values");  // key, type, one byte
  read_metadata(cursor, values);
  read_tensors(cursor, tensors);
  place_tensors(cursor.position());
  check_overlaps();
  if (const auto parts = integer("split.count"); parts && *parts > 1)
    fail(ErrorKind::kUnsupported, kWhere, path.string(), " is one of ", *parts,
         " parts; put them together first: llama-gguf-split --merge FIRST_PART OUT");
}

void GgufFile::read_metadata(Cursor& cursor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const std::string key(cursor.string("a key"));
    if (key.empty() || key.size() > kMaxKey) cursor.refuse("a key of ", key.size(), " bytes");
    GgufValue value;
    value.type = cursor.type();
    if (value.type == GgufType::kArray) {
      value.is_array = true;
      value.type = cursor.type();
      if (value.type == GgufType::kArray)
        fail(ErrorKind::kUnsupported, kWhere, file_.path().string(), ": ", printable(key),
             " is an array of arrays");
      value.count = cursor.count(size_of_type(value.type), "an array's length");
    }
    if (value.type == GgufType::kString) {
      value.strings.reserve(static_cast<size_t>(value.count));
      for (int64_t k = 0; k < value.count; ++k) value.strings.push_back(cursor.string("a string"));
    } else {
      value.numbers = cursor.take(value.count * size_of_type(value.type), "a value");
    }
    if (!values_.emplace(key, std::move(value)).second)
      cursor.refuse("the key ", printable(key), " comes twice");
    keys_.push_back(key);
  }
}

void GgufFile::read_tensors(Cursor& cursor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    GgufTensor t;
    t.name = cursor.string("a tensor's name");
    if (t.name.empty() || t.name.size() > kMaxTensorName)
      cursor.refuse("a tensor's name of ", t.name.size(), " bytes, expected 1 to ", kMaxTensorName);
    const std::string name = printable(t.name);
    if (!index_.emplace(t.name, tensors_.size()).second)
      cursor.refuse("the tensor ", name, " comes twice");
    const auto dims = cursor.number<uint32_t>("a number of dimensions");
    if (dims > kMaxDims)
      cursor.refuse("tensor ", name, " has ", dims, " dimensions, expected at most ", kMaxDims);
    t.bytes = 1;
    for (uint32_t d = 0; d < dims; ++d) {
      const auto size = cursor.number<uint64_t>("a dimension");
      if (size == 0 || size > static_cast<uint64_t>(INT64_MAX) ||
          __builtin_mul_overflow(t.bytes, static_cast<int64_t>(size), &t.bytes))
        cursor.refuse("dimension ", d, " of tensor ", name, " is ", size, ": zero or too large");
      t.shape.insert(t.shape.begin(), static_cast<int64_t>(size));
    }
    const auto type = cursor.number<uint32_t>("a tensor's type");
    const GgmlTypeInfo* info = find_ggml_type(type);
    if (!info)
      fail(ErrorKind::kUnsupported, kWhere, file_.path().string(), ": tensor ", name,
           " has the type ", type, " ", ggml_type_name(type),
           ", which this program does not decode");
    t.type = info->type;
    if (t.columns() % info->block_values != 0)
      cursor.refuse("rows of tensor ", name, " have ", t.columns(), " values, ", info->name,
                    " needs a multiple of ", info->block_values);
    if (__builtin_mul_overflow(t.bytes / info->block_values, info->block_bytes, &t.bytes))
      cursor.refuse("the size of tensor ", name, " overflows 63 bits");
    const auto offset = cursor.number<uint64_t>("a tensor's offset");
    if (offset > static_cast<uint64_t>(file_.size()))
      cursor.refuse("tensor ", name, " begins at byte ", offset,
                    " of the data, behind the end of the file");
    t.offset = static_cast<int64_t>(offset);
    tensors_.push_back(std::move(t));
  }
}

// Offsets are relative to the first multiple of the alignment behind the table.
void GgufFile::place_tensors(int64_t table_end) {
  const int64_t alignment = integer("general.alignment").value_or(32);
  if (alignment < 1 || alignment > (1 << 30) ||
      !std::has_single_bit(static_cast<uint64_t>(alignment)))
    fail(ErrorKind::kCorruptFile, kWhere, file_.path().string(), ": general.alignment is ",
         alignment, ", expected a power of two up to 2^30");
  const int64_t begin = (table_end + alignment - 1) / alignment * alignment;
  for (GgufTensor& t : tensors_) {
    const auto refuse = [&](const auto&... parts) {
      fail(ErrorKind::kCorruptFile, kWhere, file_.path().string(), ": tensor ", printable(t.name),
           " ", parts...);
    };
    if (t.offset % alignment != 0)
      refuse("begins at byte ", t.offset, " of the data, not a multiple of ", alignment);
    t.offset += begin;
    if (t.offset > file_.size() || t.bytes > file_.size() - t.offset)
      refuse("has ", t.bytes, " bytes from byte ", t.offset, " on, but the file has ", file_.size(),
             ": is it complete?");
  }
}

void GgufFile::check_overlaps() const {
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& t : tensors_) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes)
      fail(ErrorKind::kCorruptFile, kWhere, file_.path().string(), ": tensor ",
           printable(order[i]->name), " at byte ", order[i]->offset, " begins inside tensor ",
           printable(order[i - 1]->name));
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = values_.find(std::string(key));
  return found == values_.end() ? nullptr : &found->second;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

namespace {

[[noreturn]] void refuse_type(const GgufFile& file, std::string_view key, const char* expected) {
  fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": the value of ", key, " is not ",
       expected);
}

}  // namespace

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto result = value->is_array ? std::nullopt : integer_at(*value, 0);
  if (!result) refuse_type(*this, key, "an integer");
  return result;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto result = value->is_array ? std::nullopt : number_at(*value, 0);
  if (!result) refuse_type(*this, key, "a number");
  return result;
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->is_array || value->type != GgufType::kBool) refuse_type(*this, key, "a truth value");
  return load<uint8_t>(value->numbers, 0) != 0;
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->is_array || value->type != GgufType::kString) refuse_type(*this, key, "a string");
  return value->strings[0];
}

std::span<const std::string_view> GgufFile::strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return {};
  if (!value->is_array || value->type != GgufType::kString)
    refuse_type(*this, key, "an array of strings");
  return value->strings;
}

std::vector<int64_t> GgufFile::integers(std::string_view key) const {
  std::vector<int64_t> result;
  const GgufValue* value = find(key);
  if (!value) return result;
  if (!value->is_array) refuse_type(*this, key, "an array");
  for (int64_t i = 0; i < value->count; ++i) {
    const auto v = integer_at(*value, i);
    if (!v) refuse_type(*this, key, "an array of integers");
    result.push_back(*v);
  }
  return result;
}

std::vector<float> GgufFile::floats(std::string_view key) const {
  std::vector<float> result;
  const GgufValue* value = find(key);
  if (!value) return result;
  if (!value->is_array) refuse_type(*this, key, "an array");
  for (int64_t i = 0; i < value->count; ++i) {
    const auto v = number_at(*value, i);
    if (!v) refuse_type(*this, key, "an array of numbers");
    result.push_back(static_cast<float>(*v));
  }
  return result;
}

}  // namespace signround
