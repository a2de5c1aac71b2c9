#include "signround/text/documents.h"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>

#include "signround/base/error.h"
#include "signround/io/file.h"
#include "signround/text/jinja_unicode.h"
#include "signround/text/unicode.h"

namespace signround {
namespace {

using nlohmann::ordered_json;
constexpr const char* kWhere = "documents";

bool is_messages(const ordered_json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const ordered_json& m) {
           return m.is_object() && m.contains("role") && m.contains("content");
         });
}

bool is_ids(const ordered_json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const ordered_json& id) {
           return id.is_number_integer() && id >= 0 && id <= INT32_MAX;
         });
}

// Python's rstrip.
void strip_end(std::string& text) { text.resize(jinja::strip(text, false, true).size()); }

// The value that holds the row's text, or null: AutoRound's order (only field, text, input_ids),
// with conversations.
ordered_json* text_field(ordered_json& row) {
  if (row.size() == 1) return &row.begin().value();
  for (const char* name : {"text", "messages", "conversations", "input_ids"})
    if (const auto it = row.find(name); it != row.end()) return &*it;
  return nullptr;
}

// Takes `value` as the document's text, conversation or ids. False: it is none of them.
bool take_value(ordered_json& value, Document& document) {
  if (value.is_string()) {
    document.text = std::move(value.get_ref<std::string&>());
    strip_end(document.text);
  } else if (is_messages(value)) {
    document.messages = std::move(value);
  } else if (is_ids(value)) {
    document.ids = value.get<std::vector<int32_t>>();
  } else {
    return false;
  }
  return true;
}

bool take_named_fields(ordered_json& row, const DocumentFields& fields, Document& document) {
  if (fields.names.size() == 1) {
    const auto it = row.find(fields.names[0]);
    return it != row.end() && take_value(*it, document);
  }
  for (size_t i = 0; i < fields.names.size(); ++i) {
    const auto it = row.find(fields.names[i]);
    if (it == row.end() || !it->is_string()) return false;
    if (i) document.text += fields.joiner;
    document.text += it->get_ref<const std::string&>();
  }
  strip_end(document.text);
  return true;
}

void add(Document document, DocumentSet& out) {
  out.bytes += static_cast<int64_t>(document.text.size() + document.ids.size() * sizeof(int32_t));
  out.items.push_back(std::move(document));
}

}  // namespace

void add_row(ordered_json& row, const DocumentFields& fields, DocumentSet& out) {
  Document document;
  bool is_text;
  if (!row.is_object()) {
    is_text = take_value(row, document);
  } else if (!fields.names.empty()) {
    is_text = take_named_fields(row, fields, document);
  } else {
    ordered_json* value = text_field(row);
    is_text = value && take_value(*value, document);
  }
  if (is_text) {
    add(std::move(document), out);
  } else {
    ++out.not_text;
  }
}

bool is_full(const std::string& source, const DocumentLimits& limits, DocumentSet& out) {
  if (out.bytes < limits.max_text) return false;
  out.warnings.push_back(source + ": only the first " + std::to_string(out.items.size()) +
                         " documents were read (" + std::to_string(out.bytes) +
                         " bytes of text, the most that is kept)");
  return true;
}

namespace {

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos;
}

std::string_view without_byte_order_mark(std::string_view bytes) {
  return bytes.starts_with("\xef\xbb\xbf") ? bytes.substr(3) : bytes;
}

// A hostile file nests brackets: each costs some 50 bytes of memory, and nothing that we read goes
// deep.
bool is_shallow(std::string_view json) {
  constexpr int kDeepest = 100;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepest) return false;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return true;
}

// `place` goes into the message: the source, with the line where there is one.
ordered_json parse_json(std::string_view bytes, const std::string& place) {
  if (!is_shallow(bytes))
    fail(ErrorKind::kCorruptFile, kWhere, place, ": brackets nest more than 100 deep");
  try {
    return ordered_json::parse(bytes);
  } catch (const ordered_json::exception& error) {
    fail(ErrorKind::kCorruptFile, kWhere, place, ": not JSON: ", excerpt(error.what(), 300));
  }
}

void add_json_line(std::string_view line, const std::string& source, int64_t number,
                   const DocumentFields& fields, const DocumentLimits& limits, DocumentSet& out) {
  if (is_blank(line)) return;
  const std::string place = source + ", line " + std::to_string(number);
  if (static_cast<int64_t>(line.size()) > limits.max_line)
    fail(ErrorKind::kCorruptFile, kWhere, place, ": longer than ", limits.max_line, " bytes");
  ordered_json row = parse_json(line, place);
  add_row(row, fields, out);
}

// Fills a buffer and returns how much, 0 at the end.
using ReadBytes = std::function<size_t(char* to, size_t most)>;

// Line by line, so that a file larger than memory serves until max_text.
void read_lines(const ReadBytes& read_bytes, const std::string& source,
                const DocumentFields& fields, const DocumentLimits& limits, DocumentSet& out) {
  std::string pending;
  std::vector<char> block(1 << 20);
  int64_t number = 0;
  for (bool end = false; !end;) {
    const size_t n = read_bytes(block.data(), block.size());
    end = n == 0;
    const size_t searched = pending.size();
    pending.append(block.data(), n);
    size_t begin = 0;
    if (number == 0) begin = pending.size() - without_byte_order_mark(pending).size();
    for (size_t newline;
         (newline = pending.find('\n', std::max(searched, begin))) != std::string::npos;
         begin = newline + 1) {
      add_json_line(std::string_view(pending).substr(begin, newline - begin), source, ++number,
                    fields, limits, out);
      if (is_full(source, limits, out)) return;
    }
    if (end)
      add_json_line(std::string_view(pending).substr(begin), source, ++number, fields, limits, out);
    pending.erase(0, begin);
    if (static_cast<int64_t>(pending.size()) > limits.max_line)
      fail(ErrorKind::kCorruptFile, kWhere, source, ", line ", number + 1, ": longer than ",
           limits.max_line, " bytes");
  }
}

void read_jsonl_file(const std::filesystem::path& path, const DocumentFields& fields,
                     const DocumentLimits& limits, DocumentSet& out) {
  const FileDescriptor file = open_to_read(kWhere, path);
  const auto read_bytes = [&](char* to, size_t most) {
    ssize_t n;
    do n = ::read(file.get(), to, most);
    while (n < 0 && errno == EINTR);
    if (n < 0) fail_io(kWhere, "read", path, errno);
    return static_cast<size_t>(n);
  };
  read_lines(read_bytes, path.string(), fields, limits, out);
}

void read_gzip_lines(const std::filesystem::path& path, const DocumentFields& fields,
                     const DocumentLimits& limits, DocumentSet& out) {
  open_to_read(kWhere, path);  // refuses what is no regular file
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) fail_io(kWhere, "open", path, errno);
  const auto read_bytes = [&](char* to, size_t most) {
    const int n = gzread(file.get(), to, static_cast<unsigned>(most));
    int state = Z_OK;  // a file that is cut off gives what there is, and only then its error
    gzerror(file.get(), &state);
    if (n < 0 || (state != Z_OK && state != Z_STREAM_END))
      fail(ErrorKind::kCorruptFile, kWhere, path.string(),
           ": is damaged or cut off, gzip cannot go on");
    return static_cast<size_t>(n);
  };
  read_lines(read_bytes, path.string(), fields, limits, out);
}

// Many files named .json hold lines of objects: the first line is then a whole object and another
// one follows.
bool is_lines_of_json(std::string_view bytes) {
  const size_t begin = bytes.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos || bytes[begin] != '{') return false;
  const size_t newline = bytes.find('\n', begin);
  return newline != std::string_view::npos && !is_blank(bytes.substr(newline)) &&
         ordered_json::accept(bytes.substr(begin, newline - begin));
}

}  // namespace

void read_json_text(std::string_view bytes, const std::string& source, const DocumentFields& fields,
                    const DocumentLimits& limits, DocumentSet& out) {
  bytes = without_byte_order_mark(bytes);
  if (is_lines_of_json(bytes)) return read_jsonl_text(bytes, source, fields, limits, out);
  ordered_json root = parse_json(bytes, source);
  if (!root.is_array() && !root.is_object())
    fail(ErrorKind::kCorruptFile, kWhere, source, ": the file is a ", root.type_name(),
         ", expected a list of documents");
  for (ordered_json& row : root) {
    const bool is_list =
        root.is_object() && row.is_array() && !is_messages(row) && !(is_ids(row) && !row.empty());
    if (!is_list) {
      add_row(row, fields, out);
    } else {
      for (ordered_json& inner : row) add_row(inner, fields, out);
    }
    if (is_full(source, limits, out)) return;
  }
}

void read_jsonl_text(std::string_view bytes, const std::string& source,
                     const DocumentFields& fields, const DocumentLimits& limits, DocumentSet& out) {
  bytes = without_byte_order_mark(bytes);
  for (int64_t number = 1; !bytes.empty(); ++number) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    add_json_line(bytes.substr(0, end), source, number, fields, limits, out);
    if (is_full(source, limits, out)) return;
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
}

void read_plain_text(std::string_view bytes, const std::string& source,
                     const DocumentLimits& limits, DocumentSet& out) {
  bytes = without_byte_order_mark(bytes);
  if (const size_t good = unicode::valid_prefix(bytes); good < bytes.size())
    fail(ErrorKind::kCorruptFile, kWhere, source, ": byte ", good, " is not UTF-8 text");
  out.continuous = true;
  size_t begin = 0, line = 0;
  while (line < bytes.size()) {
    const size_t next = std::min(bytes.find('\n', line), bytes.size() - 1) + 1;
    const bool blank = is_blank(bytes.substr(line, next - line));
    line = next;
    // A piece ends behind the last of its blank lines; leading blank lines belong to the first
    // piece.
    const size_t after = std::min(bytes.find('\n', line), bytes.size());
    const bool ends =
        line == bytes.size() || (blank && !is_blank(bytes.substr(line, after - line)));
    if (!ends || (is_blank(bytes.substr(begin, line - begin)) && line < bytes.size())) continue;
    Document document;
    document.text = bytes.substr(begin, line - begin);
    add(std::move(document), out);
    begin = line;
    if (is_full(source, limits, out)) return;
  }
}

bool is_document_file(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  for (const char* end : {".json", ".jsonl", ".json.gz", ".jsonl.gz", ".txt", ".parquet"})
    if (name.ends_with(end)) return true;
  return false;
}

void read_documents(const std::filesystem::path& file, const DocumentFields& fields,
                    const DocumentLimits& limits, DocumentSet& out) {
  const std::string name = file.filename().string();
  if (name.ends_with(".jsonl")) {
    read_jsonl_file(file, fields, limits, out);
  } else if (name.ends_with(".jsonl.gz") || name.ends_with(".json.gz")) {
    read_gzip_lines(file, fields, limits, out);
  } else if (name.ends_with(".json")) {
    read_json_text(read_text_file(kWhere, file, limits.max_file), file.string(), fields, limits,
                   out);
  } else if (name.ends_with(".txt")) {
    read_plain_text(read_text_file(kWhere, file, limits.max_file), file.string(), limits, out);
  } else if (name.ends_with(".parquet")) {
    read_parquet(file, fields, limits, out);
  } else {
    fail(ErrorKind::kUnsupported, kWhere, file.string(),
         ": expected a name that ends in .json, .jsonl, .jsonl.gz, .txt or .parquet");
  }
}

}  // namespace signround
