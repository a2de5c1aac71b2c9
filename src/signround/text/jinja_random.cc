// The filter `random` and the function `lipsum`. Both take from Python's generator, which every
// rendering starts with the same seed: the same template and messages give the same text.
#include <algorithm>
#include <iterator>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_random.h"
#include "signround/text/jinja_text_filters.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

// Jinja's constants.LOREM_IPSUM_WORDS.
constexpr std::string_view kLoremIpsum[] = {
    "a",          "ac",          "accumsan",     "ad",           "adipiscing",  "aenean",
    "aliquam",    "aliquet",     "amet",         "ante",         "aptent",      "arcu",
    "at",         "auctor",      "augue",        "bibendum",     "blandit",     "class",
    "commodo",    "condimentum", "congue",       "consectetuer", "consequat",   "conubia",
    "convallis",  "cras",        "cubilia",      "cum",          "curabitur",   "curae",
    "cursus",     "dapibus",     "diam",         "dictum",       "dictumst",    "dignissim",
    "dis",        "dolor",       "donec",        "dui",          "duis",        "egestas",
    "eget",       "eleifend",    "elementum",    "elit",         "enim",        "erat",
    "eros",       "est",         "et",           "etiam",        "eu",          "euismod",
    "facilisi",   "facilisis",   "fames",        "faucibus",     "felis",       "fermentum",
    "feugiat",    "fringilla",   "fusce",        "gravida",      "habitant",    "habitasse",
    "hac",        "hendrerit",   "hymenaeos",    "iaculis",      "id",          "imperdiet",
    "in",         "inceptos",    "integer",      "interdum",     "ipsum",       "justo",
    "lacinia",    "lacus",       "laoreet",      "lectus",       "leo",         "libero",
    "ligula",     "litora",      "lobortis",     "lorem",        "luctus",      "maecenas",
    "magna",      "magnis",      "malesuada",    "massa",        "mattis",      "mauris",
    "metus",      "mi",          "molestie",     "mollis",       "montes",      "morbi",
    "mus",        "nam",         "nascetur",     "natoque",      "nec",         "neque",
    "netus",      "nibh",        "nisi",         "nisl",         "non",         "nonummy",
    "nostra",     "nulla",       "nullam",       "nunc",         "odio",        "orci",
    "ornare",     "parturient",  "pede",         "pellentesque", "penatibus",   "per",
    "pharetra",   "phasellus",   "placerat",     "platea",       "porta",       "porttitor",
    "posuere",    "potenti",     "praesent",     "pretium",      "primis",      "proin",
    "pulvinar",   "purus",       "quam",         "quis",         "quisque",     "rhoncus",
    "ridiculus",  "risus",       "rutrum",       "sagittis",     "sapien",      "scelerisque",
    "sed",        "sem",         "semper",       "senectus",     "sit",         "sociis",
    "sociosqu",   "sodales",     "sollicitudin", "suscipit",     "suspendisse", "taciti",
    "tellus",     "tempor",      "tempus",       "tincidunt",    "torquent",    "tortor",
    "tristique",  "turpis",      "ullamcorper",  "ultrices",     "ultricies",   "urna",
    "ut",         "varius",      "vehicula",     "vel",          "velit",       "venenatis",
    "vestibulum", "vitae",       "vivamus",      "viverra",      "volutpat",    "vulputate",
};

// random.randrange(first, end)
int64_t random_in(Runtime& runtime, int64_t first, int64_t end) {
  if (end <= first) runtime.fail("empty range for randrange() (", first, ", ", end, ")");
  // Unsigned: the difference may have 64 bits.
  const uint64_t width = static_cast<uint64_t>(end) - static_cast<uint64_t>(first);
  return static_cast<int64_t>(static_cast<uint64_t>(first) + runtime.random().below(width));
}

// Jinja's generate_lorem_ipsum, one paragraph.
void append_paragraph(Runtime& runtime, Text& out, int64_t words) {
  bool capital = true;
  int64_t last_comma = 0, last_stop = 0;
  std::string_view last;
  std::string word;
  for (int64_t i = 0; i < words; ++i) {
    runtime.step(4);
    std::string_view next = last;
    while (next == last) next = kLoremIpsum[runtime.random().below(std::size(kLoremIpsum))];
    last = next;
    word = capital ? to_capitalized(next) : std::string(next);
    capital = false;
    if (i - random_in(runtime, 3, 8) > last_comma) {
      last_comma = i;
      last_stop += 2;
      word += ",";
    }
    if (i - random_in(runtime, 10, 20) > last_stop) {
      last_comma = last_stop = i;
      word += ".";
      capital = true;
    }
    if (i > 0) out.append(" ");
    if (i + 1 == words && word.back() == ',') word.pop_back();
    out.append(word);
  }
  if (words <= 0 || word.back() != '.') out.append(".");
}

}  // namespace

Value lipsum(Runtime& runtime, const Args& args) {
  const Params params(runtime, "lipsum", args, {"n", "html", "min", "max"});
  const bool html = params.flag(1, true);
  Text out(runtime);
  for (int64_t i = 0, count = params.integer(0, 5); i < count; ++i) {
    runtime.step();
    const int64_t words = random_in(runtime, params.integer(2, 20), params.integer(3, 100));
    if (i > 0) out.append(html ? "\n" : "\n\n");
    if (html) out.append("<p>");
    append_paragraph(runtime, out, words);
    if (html) out.append("</p>");
  }
  return Value::string(runtime, out.take(), html);
}

namespace filters {

Value random(Runtime& runtime, const Args& args) {
  const Params params(runtime, "random", args, {"seq"}, 1);
  const Value& seq = params[0];
  const int64_t length = length_of(seq);
  if (length < 0) runtime.fail("object of type '", type_name(seq), "' has no len()");
  if (length == 0) return Value::undefined(runtime, "No random item, sequence was empty.");
  const Value index =
      Value::integer(static_cast<Int>(runtime.random().below(static_cast<uint64_t>(length))));
  // Python indexes whatever it is given: of a dictionary, that is the value of this key.
  const Value* value = seq.is(Kind::kDict) ? seq.dict().find(index) : nullptr;
  if (value != nullptr) return *value;
  if (seq.is(Kind::kDict) || seq.is(Kind::kDictView))
    runtime.fail("random cannot take an item of a ", type_name(seq));
  return get_item(runtime, seq, index);
}

}  // namespace filters
}  // namespace signround::jinja
