// Documents of calibration and evaluation text out of .json, .jsonl, .txt and .parquet files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

// One of the three is filled: plain text, a conversation [{"role", "content"}, ...], or ids of a
// tokenizer's making.
struct Document {
  std::string text;
  nlohmann::ordered_json messages;
  std::vector<int32_t> ids;
};

// Which fields of a row make its text, joined by `joiner`. No names: the row's only field, else
// text, messages, conversations or input_ids.
struct DocumentFields {
  std::vector<std::string> names;
  std::string joiner;
};

// What a file may cost. Above max_text, reading stops and a warning says so; the rest is refused.
struct DocumentLimits {
  int64_t max_line = int64_t{64} << 20;  // bytes of a line of .jsonl
  int64_t max_file =
      int64_t{2} << 30;  // bytes of a .json, which is parsed as a whole, and of a .txt
  int64_t max_text = int64_t{2} << 30;  // bytes of text kept in memory
};

struct DocumentSet {
  std::vector<Document> items;  // in the order of the files
  int64_t not_text = 0;         // rows that had no text; not in items
  int64_t bytes = 0;            // of text in items
  bool continuous = false;      // the items are consecutive pieces of running text (.txt)
  std::vector<std::string> warnings;
};

// Appends the documents of `file`; its name's end decides the format:
// - .json: a list of rows, or an object whose members are rows or lists of rows; a file of lines
//   that are objects passes as .jsonl;
// - .jsonl: one row per line; blank lines are skipped; a line that is not JSON is kCorruptFile
//   with its number;
// - .jsonl.gz, .json.gz: such lines packed by gzip;
// - .txt: pieces that end behind a blank line, with their line ends: joined, they are the file;
// - .parquet: the columns of text (io/parquet.h).
//
// A row is a string, a list of ids, a list of messages, or an object with one of these in a field.
// Blanks at the end of a row's text are removed, as AutoRound does.
void read_documents(const std::filesystem::path& file, const DocumentFields& fields,
                    const DocumentLimits& limits, DocumentSet& out);

// The documents inside the text of a .json, .jsonl or .txt, as read_documents; `source` is for
// messages.
void read_json_text(std::string_view bytes, const std::string& source, const DocumentFields& fields,
                    const DocumentLimits& limits, DocumentSet& out);
void read_jsonl_text(std::string_view bytes, const std::string& source,
                     const DocumentFields& fields, const DocumentLimits& limits, DocumentSet& out);
void read_plain_text(std::string_view bytes, const std::string& source,
                     const DocumentLimits& limits, DocumentSet& out);

void read_parquet(const std::filesystem::path& file, const DocumentFields& fields,
                  const DocumentLimits& limits, DocumentSet& out);

// What the readers above share. add_row takes the document out of one row, or counts it as
// not_text.
void add_row(nlohmann::ordered_json& row, const DocumentFields& fields, DocumentSet& out);
// True, with a warning, when max_text is reached: the reader stops.
bool is_full(const std::string& source, const DocumentLimits& limits, DocumentSet& out);

bool is_document_file(const std::filesystem::path& file);  // by its name's end

}  // namespace signround
