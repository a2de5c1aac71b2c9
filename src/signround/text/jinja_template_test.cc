#include "signround/text/jinja_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "signround/base/error.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/testdata.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

using signround::testing::expect_error;
using Json = nlohmann::ordered_json;

// 2026-07-04 13:05:09, a Saturday: the clock of all goldens.
std::tm golden_clock() {
  std::tm time{};
  time.tm_year = 126;
  time.tm_mon = 6;
  time.tm_mday = 4;
  time.tm_hour = 13;
  time.tm_min = 5;
  time.tm_sec = 9;
  time.tm_wday = 6;
  time.tm_yday = 184;
  return time;
}

std::string render(const std::string& source, const Json& variables = Json::object()) {
  return Template("test", source).render(variables, golden_clock()).text;
}

std::string repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(JinjaTemplate, RendersAllSnippetsAsJinjaDoes) {
  std::ifstream file(testing::testdata() / "jinja/snippets.json");
  const Json goldens = Json::parse(file);
  int count = 0;
  for (const Json& group : goldens["groups"]) {
    for (const Json& golden : group["cases"]) {
      ++count;
      const std::string source = golden["template"];
      SCOPED_TRACE(source);
      if (golden.contains("error")) {
        EXPECT_THROW(render(source, group["vars"]), Error) << "Jinja says: " << golden["error"];
        continue;
      }
      try {
        const Rendering got = Template("test", source).render(group["vars"], golden_clock());
        EXPECT_EQ(got.text, golden["text"].get<std::string>());
        Json spans = Json::array();  // the goldens count characters
        for (const auto& span : got.generated) {
          const std::string_view text = got.text;
          spans.push_back({count_code_points(text.substr(0, static_cast<size_t>(span.begin))),
                           count_code_points(text.substr(0, static_cast<size_t>(span.end)))});
        }
        EXPECT_EQ(spans, golden.value("spans", Json::array()));
      } catch (const Error& error) {
        ADD_FAILURE() << error.what();
      }
    }
  }
  EXPECT_GT(count, 300);
}

TEST(JinjaTemplate, ErrorsNameTemplateLineAndColumn) {
  expect_error(ErrorKind::kCorruptFile, "[test] line 2, column 4: unknown tag 'fi'",
               [] { render("a\n{% fi %}"); });
  expect_error(ErrorKind::kCorruptFile, "line 1, column 6: unexpected '}'",
               [] { render("{{ 1 }x }}"); });
  expect_error(ErrorKind::kInvalidArgument, "line 2, column 6: 'x' is undefined",
               [] { render("é\né {{x.y}}"); });
  expect_error(ErrorKind::kInvalidArgument, "line 1, column 41: no way",
               [] { render("{% for i in [1] %}{{ i ~ raise_exception('no way') }}{% endfor %}"); });
  expect_error(ErrorKind::kInvalidArgument, "'dict object' has no attribute 'b'", [] {
    render("{{ a.b.c }}", {{"a", Json::object()}});
  });
}

TEST(JinjaTemplate, RefusesWhatWouldReadOtherFiles) {
  for (const char* source : {"{% include 'a' %}", "{% import 'a' as b %}",
                             "{% from 'a' import b %}", "{% extends 'a' %}"})
    expect_error(ErrorKind::kUnsupported, "not supported in chat templates",
                 [&] { render(source); });
}

TEST(JinjaTemplate, RefusesSourcesThatAreNoTextOrTooLong) {
  expect_error(ErrorKind::kCorruptFile, "line 2, column 2: the template is not valid UTF-8",
               [] { render("a\nb\xff"); });
  expect_error(ErrorKind::kCorruptFile, "at most 1048576 expected",
               [] { render(std::string(2 << 20, 'x')); });
}

TEST(JinjaTemplate, KeepsTheOrderOfKeysAndLargeIntegers) {
  const Json variables =
      Json::parse(R"({"d": {"z": 1, "a": 18446744073709551615, "m": -9223372036854775808}})");
  EXPECT_EQ(render("{{ d | tojson }}", variables),
            R"({"z": 1, "a": 18446744073709551615, "m": -9223372036854775808})");
}

TEST(JinjaTemplate, IsTheSameForEveryRendering) {
  const Template once(
      "test", "{% set ns = namespace(n=n) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ 'x' ~ n }}");
  EXPECT_EQ(once.render({{"n", 1}}).text, "2x1");
  EXPECT_EQ(once.render({{"n", 5}}).text, "6x5");
}

// Each would need minutes, gigabytes or a deep stack if it were let.
class HostileTemplate : public ::testing::TestWithParam<std::string> {};

TEST_P(HostileTemplate, EndsWithAnError) { EXPECT_THROW(render(GetParam()), Error); }

INSTANTIATE_TEST_SUITE_P(
    Sizes, HostileTemplate,
    ::testing::Values(
        "{{ range(10**9) }}", "{{ 'a' * 10**9 }}", "{{ [1] * 10**12 }}", "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 'a'.ljust(2**62) }}", "{{ 'a' | center(10**12) }}", "{{ 'a' | indent(10**10, true) }}",
        "{{ '%1000000000d' % 1 }}", "{{ '{:1000000000}'.format('a') }}",
        "{{ '%.1000000000f' % 1.0 }}", "{{ [[1]] | tojson(indent=10**9) }}",
        "{{ strftime_now('%999999999d') }}", "{{ ('a' * 10000000) | replace('', 'b' * 1000) }}",
        "{{ ('a' * 1000000).join('b' * 1000000) }}", "{{ ('a' * 60000000) | list }}",
        "{{ [1] | batch(10**9, 1) | list }}", "{{ lipsum(10**9) }}",
        "{{ lipsum(1, true, 10**15, 10**16) }}", "{{ lipsum(1, true, -10**30, 10**30) }}",
        "{{ ('a ' * 10000000) | wordwrap(1, wrapstring='b' * 1000) }}",
        "{{ ('a.com ' * 1000000) | urlize(target='b' * 10000) }}",
        "{% set ns = namespace(s='ab') %}{% for i in range(100) %}{% set ns.s = ns.s "
        "~ ns.s %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l "
        "+ ns.l %}{% endfor %}",
        "{% macro f(n) %}{{ 'a' * 30000000 }}{{ f(n) }}{% endmacro %}{{ f(0) }}"));

INSTANTIATE_TEST_SUITE_P(
    Steps, HostileTemplate,
    ::testing::Values(
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) "
        "}}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] "
        "%}"
        "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=(1,)) %}{% for i in range(150) %}{% set ns.x = (ns.x, ns.x) %}{% "
        "endfor %}{{ {ns.x: 1} }}",
        "{% set a = 'a' * 60000000 %}{% for i in range(1000) %}{% set b = a.upper() %}{% endfor %}",
        "{% set l = range(100000) | list %}{% for i in range(100000) %}{{ -1 in l }}{% endfor %}",
        "{% set l = range(100000) | list %}{% for i in range(100000) %}{% set p = l | pprint "
        "%}{% endfor %}",
        // What is left of a word of no-break spaces is looked at for each line that it is cut into.
        "{{ ('a ' ~ '\u00a0' * 5000000 ~ 'a') | wordwrap(1) }}",
        "{% set s = '<a>&' * 5000000 %}{% for i in range(100000) %}{% set t = s | striptags "
        "%}{% endfor %}",
        "{% set s = 'a' * 60000000 %}{% set t = 'b' ~ 'a' * 100000 %}{% for i in range(1000) %}{{ "
        "s.rfind(t) }}{% endfor %}"));

INSTANTIATE_TEST_SUITE_P(
    Depths, HostileTemplate,
    ::testing::Values("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                      "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
                      "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
                      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = "
                      "[ns.x] %}{% endfor %}",
                      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = "
                      "ns.x | map('string') %}{% endfor %}",
                      "{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}",
                      "{{ " + repeat("[", 100000) + " }}", "{{ " + repeat("not ", 100000) + "1 }}",
                      "{{ " + repeat("-", 100000) + "1 }}", "{{ 1" + repeat("+1", 100000) + " }}",
                      "{{ 1" + repeat("|string", 100000) + " }}",
                      "{{ x" + repeat(".a", 100000) + " }}",
                      "{{ 1" + repeat(" if 1 else 1", 50000) + " }}", repeat("{% if 1 %}", 50000),
                      repeat("{% for i in [1] %}", 30000)));

TEST(JinjaTemplate, SearchesInLinearTime) {
  // 6e7 * 3e7 comparisons if the search went back for every start.
  EXPECT_EQ(render("{% set a = 'a' * 60000000 %}{{ a.find('a' * 30000000 ~ 'b') }}{{ a.rfind('b' ~ "
                   "'a' * 30000000) }}"),
            "-1-1");
}

TEST(JinjaTemplate, AcceptsTheDepthThatTemplatesHave) {
  EXPECT_EQ(render("{% macro f(n) %}{% if n %}{% for i in [n] %}{{ f(i - 1) }}{% endfor %}{% else "
                   "%}end{% endif %}"
                   "{% endmacro %}{{ f(50) }}"),
            "end");
  EXPECT_EQ(render("{{ " + repeat("(", 50) + "1" + repeat(")", 50) + repeat(" + 1", 300) + " }}"),
            "301");
}

TEST(JinjaTemplate, StopsAtTheLimitsThatItIsGiven) {
  const Template loop("test", "{% for i in range(1000) %}xxxxxxxxxx{% endfor %}");
  EXPECT_EQ(loop.render(Json::object()).text.size(), 10000u);
  Limits limits;
  limits.steps = 1000;
  expect_error(ErrorKind::kInvalidArgument, "more than 1000 steps",
               [&] { loop.render(Json::object(), {}, limits); });
  limits = {};
  limits.string_bytes = 5000;
  expect_error(ErrorKind::kInvalidArgument, "a string would be longer",
               [&] { loop.render(Json::object(), {}, limits); });
}

}  // namespace
}  // namespace signround::jinja
