#include <algorithm>
#include <optional>

#include "signround/base/error.h"
#include "signround/io/mapped_file.h"
#include "signround/io/parquet.h"
#include "signround/text/documents.h"
#include "signround/text/unicode.h"

namespace signround {
namespace {

using nlohmann::ordered_json;
using Strings = std::vector<std::string>;
constexpr const char* kWhere = "documents";

// A field of the rows: a column of strings, or a list of messages in two columns of the same lists.
struct Field {
  std::string name;
  const parquet::Leaf* text = nullptr;
  const parquet::Leaf* role = nullptr;
  const parquet::Leaf* content = nullptr;
};

bool is_string(const parquet::Leaf& leaf) { return leaf.type == parquet::Type::kByteArray; }

// Writers name the levels between a list and its elements differently, so only both ends of the
// path count.
std::optional<Field> find_field(const ParquetFile& file, const std::string& name) {
  Field field{name, nullptr, nullptr, nullptr};
  for (const parquet::Leaf& leaf : file.columns()) {
    if (!is_string(leaf)) continue;
    if (leaf.path == name && leaf.max_repetition == 0) field.text = &leaf;
    if (!leaf.path.starts_with(name + ".") || leaf.max_repetition != 1) continue;
    if (leaf.path.ends_with(".role")) field.role = &leaf;
    if (leaf.path.ends_with(".content")) field.content = &leaf;
  }
  if (field.text || (field.role && field.content)) return field;
  return std::nullopt;
}

std::string column_names(const ParquetFile& file) {
  std::string names;
  for (const parquet::Leaf& leaf : file.columns()) names += (names.empty() ? "" : ", ") + leaf.path;
  return names;
}

// As the rows of other files: the only column, else text, messages or conversations.
std::vector<Field> fields_of(const ParquetFile& file, const DocumentFields& wanted,
                             const std::string& source) {
  std::vector<Field> found;
  for (const std::string& name : wanted.names) {
    const auto field = find_field(file, name);
    require(field.has_value(), kWhere, source, ": has no column '", name,
            "' of text; its columns are ", column_names(file));
    found.push_back(*field);
  }
  if (!found.empty()) return found;
  if (file.columns().size() == 1 && is_string(file.columns()[0]) &&
      file.columns()[0].max_repetition == 0)
    return {Field{file.columns()[0].path, &file.columns()[0], nullptr, nullptr}};
  for (const char* name : {"text", "messages", "conversations"})
    if (const auto field = find_field(file, name)) return {*field};
  fail(ErrorKind::kInvalidArgument, kWhere, source,
       ": has no column 'text'; choose one with :column=NAME among ", column_names(file));
}

// Rows of one column until `most` bytes; the same number of rows is then read of the other columns.
std::vector<Strings> read_column(const ParquetFile& file, const parquet::Leaf& leaf, int64_t most) {
  std::vector<Strings> rows;
  int64_t bytes = 0;
  file.read_strings(leaf, [&](Strings& strings) {
    for (const std::string& s : strings) bytes += static_cast<int64_t>(s.size());
    rows.push_back(std::move(strings));
    return bytes < most;
  });
  return rows;
}

bool all_utf8(const Strings& strings) {
  return std::all_of(strings.begin(), strings.end(),
                     [](const std::string& s) { return unicode::valid_prefix(s) == s.size(); });
}

// Puts row `i` of the field into `row`; nothing where it is null or not text.
void put(const Field& field, Strings& first, Strings* second, ordered_json& row) {
  if (!all_utf8(first) || (second && !all_utf8(*second))) return;
  if (field.text) {
    if (!first.empty()) row[field.name] = std::move(first[0]);
    return;
  }
  if (first.size() != second->size())
    return;  // a null among them: which turn it belongs to cannot be told
  ordered_json messages = ordered_json::array();
  for (size_t k = 0; k < first.size(); ++k)
    messages.push_back({{"role", first[k]}, {"content", (*second)[k]}});
  row[field.name] = std::move(messages);
}

}  // namespace

void read_parquet(const std::filesystem::path& path, const DocumentFields& wanted,
                  const DocumentLimits& limits, DocumentSet& out) {
  const MappedFile mapped(path);
  const ParquetFile file(mapped.bytes(), path.string());
  const std::vector<Field> fields = fields_of(file, wanted, path.string());
  DocumentFields named = wanted;
  if (named.names.empty()) named.names = {fields[0].name};

  struct Columns {
    std::vector<Strings> first, second;
  };
  std::vector<Columns> columns;
  size_t rows = SIZE_MAX;
  for (const Field& field : fields) {
    const int64_t most = std::max<int64_t>(limits.max_text - out.bytes, 1);
    Columns read{read_column(file, field.text ? *field.text : *field.role, most), {}};
    if (!field.text) read.second = read_column(file, *field.content, most);
    rows = std::min({rows, read.first.size(), field.text ? SIZE_MAX : read.second.size()});
    columns.push_back(std::move(read));
  }
  for (size_t i = 0; i < rows; ++i) {
    ordered_json row = ordered_json::object();
    for (size_t f = 0; f < fields.size(); ++f)
      put(fields[f], columns[f].first[i], fields[f].text ? nullptr : &columns[f].second[i], row);
    add_row(row, named, out);
  }
  if (static_cast<int64_t>(rows) < file.row_count())
    out.warnings.push_back(path.string() + ": only the first " + std::to_string(rows) + " of " +
                           std::to_string(file.row_count()) +
                           " rows were read (the most text that is kept)");
}

}  // namespace signround
