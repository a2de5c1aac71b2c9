// A model's chat template: conversations to the text that the model was trained on, as
// transformers' apply_chat_template renders them.
#pragma once

#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "signround/text/jinja_template.h"

namespace signround {

struct ChatOptions {
  bool add_generation_prompt = false;
  std::string name;  // of the template; "": tool_use where there are tools and such a template,
                     // else default
  std::optional<std::string> bos;  // instead of the model's own tokens
  std::optional<std::string> eos;
  nlohmann::ordered_json documents;  // null, or a list of objects
  nlohmann::ordered_json extra =
      nlohmann::ordered_json::object();  // more variables, e.g. enable_thinking
  std::optional<std::tm> now;            // for strftime_now; empty: the local time
};

// Cheap to copy. Thread-safe.
class ChatTemplate {
 public:
  // `where` names the template in messages. Syntax errors show when a template is first rendered.
  static ChatTemplate from_text(std::string source, const std::string& where = "chat template");
  // From tokenizer_config.json: its field chat_template, one text or a list of {name, template},
  // and its special tokens. nullopt: it has no template.
  static std::optional<ChatTemplate> from_config(const nlohmann::ordered_json& config,
                                                 const std::string& where);
  // From a model's folder: chat_template.jinja with additional_chat_templates/*.jinja, else
  // tokenizer_config.json, else chat_template.json; or from a GGUF file. nullopt: the model has no
  // template.
  static std::optional<ChatTemplate> load(const std::filesystem::path& model);

  std::vector<std::string> names() const;  // "default" where there is one template

  // The text of a conversation. `messages` is a list of objects that is not empty; members that are
  // null are taken away, and reasoning_content, thinking and reasoning stand for each other.
  // `tools` is null or a list of objects. The order of keys is kept. Error{kInvalidArgument} where
  // the template raises or goes beyond its limits; {kCorruptFile} where it is no template.
  std::string render(const nlohmann::ordered_json& messages,
                     const nlohmann::ordered_json& tools = nullptr,
                     const ChatOptions& options = {}) const;
  // The same, with the places that {% generation %} blocks wrote: what a loss on assistant turns
  // looks at.
  jinja::Rendering render_with_spans(const nlohmann::ordered_json& messages,
                                     const nlohmann::ordered_json& tools = nullptr,
                                     const ChatOptions& options = {}) const;

 private:
  struct Source;
  void add(const std::string& name, std::string source, const std::string& where);
  void add_special_tokens(const nlohmann::ordered_json& config);
  const Source& choose(const std::string& name, bool has_tools) const;

  std::map<std::string, std::shared_ptr<const Source>> sources_;
  nlohmann::ordered_json special_tokens_ =
      nlohmann::ordered_json::object();  // bos_token and so on, to their texts
};

}  // namespace signround
