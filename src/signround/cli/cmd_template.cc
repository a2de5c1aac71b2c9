// signround template: what a chat template makes of a conversation.
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "signround/base/error.h"
#include "signround/cli/commands.h"
#include "signround/cli/flags.h"
#include "signround/io/file.h"
#include "signround/text/chat_template.h"

namespace signround {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxMessagesBytes = 64 << 20;

struct Request {
  Json messages, tools;
  ChatOptions options;
};

// {"messages": [...], "tools": [...], "documents": [...], anything else: more variables}
void read_conversation(const std::string& path, Request& request) {
  Json file;
  try {
    file = Json::parse(read_text_file("template", path, kMaxMessagesBytes));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kCorruptFile, "template", path, ": ", excerpt(error.what(), 300));
  }
  if (!file.is_object() || !file.contains("messages"))
    fail(ErrorKind::kCorruptFile, "template", path,
         ": an object with the member messages expected");
  for (auto& [key, value] : file.items()) {
    if (key == "messages")
      request.messages = std::move(value);
    else if (key == "tools")
      request.tools = std::move(value);
    else if (key == "documents")
      request.options.documents = std::move(value);
    else
      request.options.extra[key] = std::move(value);
  }
}

ChatTemplate open_template(const std::string& model, const std::string& file) {
  if (!file.empty())
    return ChatTemplate::from_text(read_text_file("template", file, kMaxMessagesBytes), file);
  auto loaded = ChatTemplate::load(model);
  if (!loaded) fail(ErrorKind::kUnsupported, "template", model, ": the model has no chat template");
  return std::move(*loaded);
}

}  // namespace

int cmd_template(int argc, const char* const* argv) {
  std::string model, file, messages, bos, eos, now;
  bool json = false;
  Request request;
  Flags flags("template (MODEL | --template FILE) --messages FILE [flags]",
              "Prints what a chat template makes of a conversation, and nothing else.");
  flags.positional("MODEL", model, "folder of a model, or .gguf file", false);
  flags.add("template", file, {.help = "a template instead of the model's", .value = "FILE"});
  flags.add("messages", messages,
            {.help = "JSON: {\"messages\": [...], \"tools\": [...], \"documents\": [...]}; other "
                     "members are passed on",
             .value = "FILE"});
  flags.add("add_generation_prompt", request.options.add_generation_prompt,
            {.help = "end with the begin of the assistant's turn"});
  flags.add("name", request.options.name,
            {.help = "which of several templates, e.g. tool_use", .value = "NAME"});
  flags.add("bos", bos, {.help = "the token bos_token", .value = "TEXT"});
  flags.add("eos", eos, {.help = "the token eos_token", .value = "TEXT"});
  flags.add("now", now,
            {.help = "the time that the template sees, as 2026-07-04T13:05:09", .value = "TIME"});
  flags.add("json", json, {.help = R"(print {"text"})"});
  if (!flags.parse(argc, argv)) return 0;
  if (model.empty() == file.empty()) flags.problem("either MODEL or --template is needed");
  if (messages.empty()) flags.problem("--messages is needed");
  if (!now.empty()) {
    std::tm time{};
    const char* end = strptime(now.c_str(), "%Y-%m-%dT%H:%M:%S", &time);
    if (end == nullptr || *end != '\0')
      flags.problem("--now: a time as 2026-07-04T13:05:09 expected, found '" + now + "'");
    request.options.now = time;
  }
  flags.check();

  if (flags.was_set("bos")) request.options.bos = bos;
  if (flags.was_set("eos")) request.options.eos = eos;
  const ChatTemplate chat = open_template(model, file);
  read_conversation(messages, request);
  std::string text = chat.render(request.messages, request.tools, request.options);
  if (json)
    text = Json({{"text", text}}).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    fail(ErrorKind::kIo, "template", "the text cannot be written to the standard output");
  return 0;
}

}  // namespace signround
