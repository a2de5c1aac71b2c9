#include "signround/io/parquet_metadata.h"

#include <cstring>

#include "signround/base/error.h"
#include "signround/io/thrift_compact.h"

namespace signround::parquet {
namespace {

using Field = ThriftReader::Field;
constexpr const char* kWhere = "parquet";
constexpr int kDeepestSchema = 32;
constexpr size_t kLongestPath = 4096;  // a path is copied into every column below it

struct SchemaElement {
  int64_t type = -1;  // -1: a group
  int64_t repetition = 0;
  int64_t children = 0;
  std::string name;
};

SchemaElement read_schema_element(ThriftReader& in) {
  SchemaElement element;
  const int saved = in.begin_struct();
  for (Field f; in.next_field(f);) {
    switch (f.id) {
      case 1:
        element.type = in.read_int(f);
        break;
      case 3:
        element.repetition = in.read_int(f);
        break;
      case 4:
        element.name = in.read_binary(f);
        break;
      case 5:
        element.children = in.read_int(f);
        break;
      default:
        in.skip(f);
    }
  }
  in.end_struct(saved);
  if (element.type > 7 || element.repetition < 0 || element.repetition > 2 || element.children < 0)
    in.corrupt("schema element '" + element.name + "' makes no sense");
  return element;
}

// The schema is a tree written depth first, each group saying how many children follow.
std::vector<Leaf> leaves_of(const std::vector<SchemaElement>& schema, const ThriftReader& in) {
  struct Group {
    int64_t left;  // children still to come
    std::string path;
    int definition, repetition;
  };
  if (schema.empty() || schema[0].children == 0) in.corrupt("the schema has no columns");
  std::vector<Group> open{{schema[0].children, "", 0, 0}};
  std::vector<Leaf> leaves;
  for (size_t i = 1; i < schema.size(); ++i) {
    while (!open.empty() && open.back().left == 0) open.pop_back();
    if (open.empty()) in.corrupt("the schema has more elements than its groups hold");
    Group& parent = open.back();
    --parent.left;
    const SchemaElement& e = schema[i];
    Group here{e.children, parent.path.empty() ? e.name : parent.path + "." + e.name,
               parent.definition + (e.repetition != 0), parent.repetition + (e.repetition == 2)};
    if (here.path.size() > kLongestPath) in.corrupt("a column's name is too long");
    if (e.type >= 0) {
      leaves.push_back({here.path, static_cast<Type>(e.type), here.definition, here.repetition});
    } else {
      open.push_back(std::move(here));
      if (open.size() > kDeepestSchema) in.corrupt("the schema nests too deep");
    }
  }
  for (const Group& group : open)
    if (group.left > 0) in.corrupt("the schema ends before its groups are full");
  return leaves;
}

void read_column_metadata(ThriftReader& in, const Field& field, ColumnChunk& chunk) {
  int64_t data = -1, dictionary = -1, codec = 0;
  const int saved = in.begin_struct(field);
  for (Field f; in.next_field(f);) {
    switch (f.id) {
      case 4:
        codec = in.read_int(f);
        break;
      case 5:
        chunk.values = in.read_int(f);
        break;
      case 7:
        chunk.size = in.read_int(f);
        break;
      case 9:
        data = in.read_int(f);
        break;
      case 11:
        dictionary = in.read_int(f);
        break;
      default:
        in.skip(f);
    }
  }
  in.end_struct(saved);
  if (codec < 0 || codec > 7) in.corrupt("codec " + std::to_string(codec) + " is not known");
  chunk.codec = static_cast<Codec>(codec);
  // Some writers leave a dictionary offset of 0 where there is no dictionary.
  chunk.offset = dictionary > 0 && dictionary < data ? dictionary : data;
  if (chunk.values == 0) chunk.offset = 4, chunk.size = 0;  // nothing to read, whatever the offsets say
}

ColumnChunk read_column_chunk(ThriftReader& in) {
  ColumnChunk chunk;
  const int saved = in.begin_struct();
  for (Field f; in.next_field(f);) {
    if (f.id == 3) {
      read_column_metadata(in, f, chunk);
    } else {
      in.skip(f);
    }
  }
  in.end_struct(saved);
  return chunk;
}

RowGroup read_row_group(ThriftReader& in) {
  RowGroup group;
  const int saved = in.begin_struct();
  for (Field f; in.next_field(f);) {
    if (f.id == 1) {
      const int64_t columns = in.read_list(f, ThriftReader::kStruct).size;
      for (int64_t i = 0; i < columns; ++i) group.columns.push_back(read_column_chunk(in));
    } else if (f.id == 3) {
      group.rows = in.read_int(f);
    } else {
      in.skip(f);
    }
  }
  in.end_struct(saved);
  return group;
}

// `end`: where the footer begins; pages lie in front of it.
void check_groups(const Footer& footer, int64_t end, const ThriftReader& in) {
  int64_t rows = 0;
  for (const RowGroup& group : footer.groups) {
    if (group.columns.size() != footer.leaves.size())
      in.corrupt("a row group has " + std::to_string(group.columns.size()) +
                 " columns, the schema " + std::to_string(footer.leaves.size()));
    if (group.rows < 0 || group.rows > footer.rows - rows)
      in.corrupt("the row groups have more rows than the file");
    rows += group.rows;
    for (const ColumnChunk& chunk : group.columns)
      if (chunk.offset < 4 || chunk.size < 0 || chunk.offset > end ||
          chunk.size > end - chunk.offset || chunk.values < 0)
        in.corrupt("a column at " + std::to_string(chunk.offset) + " of " +
                   std::to_string(chunk.size) + " bytes does not lie in the file");
  }
  if (rows != footer.rows) in.corrupt("the row groups have fewer rows than the file");
}

int64_t checked_size(ThriftReader& in, int64_t size) {
  if (size < 0 || size > INT32_MAX) in.corrupt("a size of " + std::to_string(size));
  return size;
}

void read_data_header(ThriftReader& in, const Field& field, PageHeader& header) {
  const int saved = in.begin_struct(field);
  for (Field f; in.next_field(f);) {
    switch (f.id) {
      case 1:
        header.values = checked_size(in, in.read_int(f));
        break;
      case 2:
        header.encoding = static_cast<Encoding>(in.read_int(f));
        break;
      default:
        in.skip(f);
    }
  }
  in.end_struct(saved);
}

void read_data_v2_header(ThriftReader& in, const Field& field, PageHeader& header) {
  const int saved = in.begin_struct(field);
  for (Field f; in.next_field(f);) {
    switch (f.id) {
      case 1:
        header.values = checked_size(in, in.read_int(f));
        break;
      case 4:
        header.encoding = static_cast<Encoding>(in.read_int(f));
        break;
      case 5:
        header.definition_bytes = checked_size(in, in.read_int(f));
        break;
      case 6:
        header.repetition_bytes = checked_size(in, in.read_int(f));
        break;
      case 7:
        header.is_compressed = in.read_bool(f);
        break;
      default:
        in.skip(f);
    }
  }
  in.end_struct(saved);
}

}  // namespace

Footer read_footer(std::span<const std::byte> file, const std::string& source) {
  constexpr int64_t kTail = 8;  // length of the footer (4 bytes, little-endian), "PAR1"
  const auto size = static_cast<int64_t>(file.size());
  const auto has_magic = [&](int64_t at, const char* magic) {
    return std::memcmp(file.data() + at, magic, 4) == 0;
  };
  if (size < 4 + kTail || !(has_magic(0, "PAR1") || has_magic(0, "PARE")))
    fail(ErrorKind::kCorruptFile, kWhere, source, ": is no Parquet file (", size,
         " bytes, no PAR1 at the start)");
  if (has_magic(size - 4, "PARE")) fail(ErrorKind::kUnsupported, kWhere, source, ": is encrypted");
  if (!has_magic(size - 4, "PAR1"))
    fail(ErrorKind::kCorruptFile, kWhere, source, ": no PAR1 at byte ", size - 4,
         ": the file is cut off");
  uint32_t length = 0;
  for (int i = 0; i < 4; ++i)
    length |= static_cast<uint32_t>(file[file.size() - kTail + i]) << (8 * i);
  if (length > size - kTail - 4)
    fail(ErrorKind::kCorruptFile, kWhere, source, ": a footer of ", length, " bytes in a file of ",
         size);
  const int64_t begin = size - kTail - length;

  Footer footer;
  std::vector<SchemaElement> schema;
  ThriftReader in(file.subspan(begin, length), source + ", footer");
  for (Field f; in.next_field(f);) {
    if (f.id == 2) {
      const int64_t n = in.read_list(f, ThriftReader::kStruct).size;
      for (int64_t i = 0; i < n; ++i) schema.push_back(read_schema_element(in));
    } else if (f.id == 3) {
      footer.rows = in.read_int(f);
    } else if (f.id == 4) {
      const int64_t n = in.read_list(f, ThriftReader::kStruct).size;
      for (int64_t i = 0; i < n; ++i) footer.groups.push_back(read_row_group(in));
    } else if (f.id == 8) {
      fail(ErrorKind::kUnsupported, kWhere, source, ": is encrypted");
    } else {
      in.skip(f);
    }
  }
  footer.leaves = leaves_of(schema, in);
  check_groups(footer, begin, in);
  return footer;
}

PageHeader read_page_header(std::span<const std::byte> bytes, const std::string& place) {
  PageHeader header;
  ThriftReader in(bytes, place);
  for (Field f; in.next_field(f);) {
    switch (f.id) {
      case 1: {
        const int64_t type = in.read_int(f);
        if (type < 0 || type > 3) in.corrupt("page type " + std::to_string(type));
        header.type = static_cast<PageType>(type);
        break;
      }
      case 2:
        header.uncompressed_size = checked_size(in, in.read_int(f));
        break;
      case 3:
        header.compressed_size = checked_size(in, in.read_int(f));
        break;
      case 4:
        header.crc = static_cast<uint32_t>(in.read_int(f));
        break;
      case 5:
      case 7:
        read_data_header(in, f, header);
        break;
      case 8:
        read_data_v2_header(in, f, header);
        break;
      default:
        in.skip(f);
    }
  }
  header.header_size = static_cast<int64_t>(in.position());
  return header;
}

}  // namespace signround::parquet
