#include "signround/text/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "signround/base/hash.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

using signround::testing::expect_error;
using signround::testing::TempDir;
using signround::testing::write_file;
using Json = nlohmann::ordered_json;

const Json kHello = Json::parse(R"([{"role": "user", "content": "hi"}])");

std::tm golden_clock() {  // 2026-07-04 13:05:09, a Saturday
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

std::string digest(const ChatTemplate& chat, const Json& conversation, bool generation_prompt) {
  ChatOptions options;
  options.add_generation_prompt = generation_prompt;
  options.bos = "<s>";
  options.eos = "</s>";
  options.now = golden_clock();
  Json tools, messages;
  for (const auto& [key, value] : conversation.items()) {
    if (key == "messages")
      messages = value;
    else if (key == "tools")
      tools = value;
    else if (key == "documents")
      options.documents = value;
    else
      options.extra[key] = value;
  }
  try {
    return sha256_hex(chat.render(messages, tools, options)).substr(0, 12);
  } catch (const Error&) {
    return "raises";
  }
}

TEST(ChatTemplate, RendersAllConversationsAsTransformersDoes) {
  const std::filesystem::path folder = testing::testdata() / "chat_templates";
  std::ifstream conversations_file(folder / "conversations.json"),
      goldens_file(folder / "goldens.json");
  const Json conversations = Json::parse(conversations_file), goldens = Json::parse(goldens_file);
  int templates = 0;
  for (const auto& [name, words] : goldens["templates"].items()) {
    if (!std::filesystem::exists(folder / name))
      continue;  // not ours to give away; only its hashes are here
    ++templates;
    const ChatTemplate chat = ChatTemplate::from_text(testing::read_file(folder / name), name);
    std::istringstream expected(words.get<std::string>());
    for (const auto& [title, conversation] : conversations.items())
      for (const bool prompt : {false, true}) {
        std::string word;
        ASSERT_TRUE(expected >> word);
        EXPECT_EQ(digest(chat, conversation, prompt), word)
            << name << ", " << title << ", generation prompt " << prompt;
      }
  }
  EXPECT_GE(templates, 19);
}

TEST(ChatTemplate, TakesTemplateAndTokensFromTheTokenizersConfig) {
  const TempDir dir;
  write_file(
      dir / "tokenizer_config.json",
      R"({"chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token is defined }}",
                 "bos_token": {"content": "<b>", "special": true}, "eos_token": "<e>", "pad_token": null})");
  const auto chat = ChatTemplate::load(dir.path());
  ASSERT_TRUE(chat);
  EXPECT_EQ(chat->render(kHello), "<b>hi<e>False");
  ChatOptions options;
  options.bos = "";
  options.extra["eos_token"] = "!";
  EXPECT_EQ(chat->render(kHello, nullptr, options), "hi!False");
}

TEST(ChatTemplate, PrefersTheTemplateFileAndFindsTheOthers) {
  const TempDir dir;
  write_file(dir / "tokenizer_config.json", R"({"chat_template": "old", "bos_token": "<b>"})");
  write_file(dir / "chat_template.jinja", "{{ bos_token }}new\n");
  std::filesystem::create_directory(dir / "additional_chat_templates");
  write_file(dir / "additional_chat_templates/tool_use.jinja", "tools");
  write_file(dir / "special_tokens_map.json", R"({"bos_token": "<other>"})");
  const auto chat = ChatTemplate::load(dir.path());
  ASSERT_TRUE(chat);
  EXPECT_EQ(chat->names(), (std::vector<std::string>{"default", "tool_use"}));
  EXPECT_EQ(chat->render(kHello), "<b>new");
  EXPECT_EQ(chat->render(kHello, Json::parse("[{}]")), "tools");
}

TEST(ChatTemplate, ReadsTheProcessorsFileWhereThereIsNoOther) {
  const TempDir dir;
  write_file(dir / "tokenizer_config.json", R"({"eos_token": "<e>"})");
  write_file(dir / "chat_template.json", R"({"chat_template": "x{{ eos_token }}"})");
  EXPECT_EQ(ChatTemplate::load(dir.path())->render(kHello), "x<e>");
}

TEST(ChatTemplate, IsAbsentWhereTheModelHasNone) {
  const TempDir dir;
  EXPECT_FALSE(ChatTemplate::load(dir.path()));
  write_file(dir / "tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_FALSE(ChatTemplate::load(dir.path()));
}

TEST(ChatTemplate, ChoosesAmongNamedTemplates) {
  const Json config = Json::parse(
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"},
                            {"name": "broken", "template": "{% if %}"}]})");
  const auto chat = ChatTemplate::from_config(config, "config");
  EXPECT_EQ(chat->render(kHello), "d");
  EXPECT_EQ(chat->render(kHello, Json::array()), "t");
  ChatOptions options;
  options.name = "tool_use";
  EXPECT_EQ(chat->render(kHello, nullptr, options), "t");
  options.name = "rag";
  expect_error(ErrorKind::kInvalidArgument,
               "no template named 'rag', only: broken, default, tool_use",
               [&] { chat->render(kHello, nullptr, options); });
  options.name = "broken";
  expect_error(ErrorKind::kCorruptFile, "config 'broken'",
               [&] { chat->render(kHello, nullptr, options); });
}

TEST(ChatTemplate, RefusesBrokenConfigs) {
  for (const char* config : {R"({"chat_template": 5})", R"({"chat_template": [{"name": "a"}]})",
                             R"({"chat_template": ["a"]})"})
    expect_error(ErrorKind::kCorruptFile, "chat_template",
                 [&] { ChatTemplate::from_config(Json::parse(config), "c"); });
  const TempDir dir;
  write_file(dir / "tokenizer_config.json", "{");
  expect_error(ErrorKind::kCorruptFile, "tokenizer_config.json",
               [&] { ChatTemplate::load(dir.path()); });
}

TEST(ChatTemplate, RefusesWhatIsNoConversation) {
  const ChatTemplate chat = ChatTemplate::from_text("x");
  expect_error(ErrorKind::kInvalidArgument, "messages must be a list",
               [&] { chat.render(Json::object()); });
  expect_error(ErrorKind::kInvalidArgument, "messages is empty",
               [&] { chat.render(Json::array()); });
  expect_error(ErrorKind::kInvalidArgument, "messages[0] must be an object",
               [&] { chat.render({1}); });
  expect_error(ErrorKind::kInvalidArgument, "tools[0] must be an object",
               [&] { chat.render(kHello, {"f"}); });
}

TEST(ChatTemplate, DropsNullMembersAndSharesTheReasoning) {
  const ChatTemplate chat = ChatTemplate::from_text("{{ messages[0] | tojson }}");
  EXPECT_EQ(
      chat.render(Json::parse(R"([{"role": "assistant", "content": null, "reasoning": "r"}])")),
      R"({"thinking": "r", "role": "assistant", "reasoning": "r", "reasoning_content": "r"})");
}

TEST(ChatTemplate, SaysWhatTheAssistantWrote) {
  const ChatTemplate chat = ChatTemplate::from_text(
      "{% for m in messages %}é{% if m.role == 'user' %}{{ m.content }}{% else %}"
      "{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}");
  const auto rendering = chat.render_with_spans(Json::parse(
      R"([{"role": "user", "content": "ü"}, {"role": "assistant", "content": "yes"}])"));
  EXPECT_EQ(rendering.text, "éüéyes");
  ASSERT_EQ(rendering.generated.size(), 1u);
  EXPECT_EQ(rendering.text.substr(static_cast<size_t>(rendering.generated[0].begin)), "yes");
  EXPECT_EQ(rendering.generated[0].end, static_cast<int64_t>(rendering.text.size()));
}

}  // namespace
}  // namespace signround
