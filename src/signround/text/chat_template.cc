#include "signround/text/chat_template.h"

#include <algorithm>
#include <mutex>

#include "signround/base/error.h"
#include "signround/io/file.h"
#include "signround/io/gguf.h"
#include "signround/text/gguf_tokenizer.h"

namespace signround {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kWhere = "chat template";
constexpr int64_t kMaxTemplateBytes = 4 << 20;
constexpr int64_t kMaxConfigBytes = 256 << 20;  // tokenizer_config.json lists all added tokens

// The special tokens that transformers passes to templates.
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};
constexpr const char* kReasoningFields[] = {"reasoning_content", "thinking", "reasoning"};

Json read_json(const std::filesystem::path& path) {
  try {
    return Json::parse(read_text_file(kWhere, path, kMaxConfigBytes));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kCorruptFile, kWhere, path.string(), ": ", excerpt(error.what(), 300));
  }
}

const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

void require_objects(const Json& list, const char* what) {
  require(list.is_array(), kWhere, what, " must be a list, found ", list.type_name());
  for (size_t i = 0; i < list.size(); ++i)
    require(list[i].is_object(), kWhere, what, "[", i, "] must be an object, found ",
            list[i].type_name());
}

// What apply_chat_template makes of a message: without null members, and with the reasoning under
// the name that current templates read (reasoning_content) and the one that gpt-oss reads
// (thinking, in front).
Json normalized_message(const Json& message) {
  Json result = Json::object();
  for (const auto& [key, value] : message.items())
    if (!value.is_null()) result[key] = value;
  for (const char* field : kReasoningFields) {
    const Json* reasoning = find(result, field);
    if (reasoning == nullptr) continue;
    const Json text = *reasoning;
    Json aliased = {{"thinking", text}};
    for (const auto& [key, value] : result.items()) aliased[key] = value;
    aliased["reasoning_content"] = text;
    return aliased;
  }
  return result;
}

}  // namespace

// Compiled when it is first used, so that a broken template that nobody asks for does no harm.
struct ChatTemplate::Source {
  std::string where, text;
  mutable std::once_flag once;
  mutable std::optional<jinja::Template> compiled;

  const jinja::Template& get() const {
    std::call_once(once, [this] { compiled.emplace(where, text); });
    return *compiled;
  }
};

void ChatTemplate::add(const std::string& name, std::string source, const std::string& where) {
  auto entry = std::make_shared<Source>();
  entry->where = where;
  entry->text = std::move(source);
  sources_[name] = std::move(entry);
}

void ChatTemplate::add_special_tokens(const Json& config) {
  for (const char* name : kSpecialTokens) {
    const Json* token = find(config, name);
    if (token != nullptr && token->is_object()) token = find(*token, "content");
    if (token != nullptr && token->is_string() && !special_tokens_.contains(name))
      special_tokens_[name] = *token;
  }
}

ChatTemplate ChatTemplate::from_text(std::string source, const std::string& where) {
  ChatTemplate result;
  result.add("default", std::move(source), where);
  return result;
}

std::optional<ChatTemplate> ChatTemplate::from_config(const Json& config,
                                                      const std::string& where) {
  ChatTemplate result;
  result.add_special_tokens(config);
  const Json* field = find(config, "chat_template");
  if (field == nullptr) return std::nullopt;
  if (field->is_string()) {
    result.add("default", field->get<std::string>(), where);
    return result;
  }
  if (!field->is_array())
    fail(ErrorKind::kCorruptFile, kWhere, where, ": chat_template is neither a text nor a list");
  for (const Json& entry : *field) {
    const Json *name = find(entry, "name"), *source = find(entry, "template");
    if (name == nullptr || !name->is_string() || source == nullptr || !source->is_string())
      fail(ErrorKind::kCorruptFile, kWhere, where,
           ": an entry of chat_template lacks its name or template");
    result.add(name->get<std::string>(), source->get<std::string>(),
               where + " '" + name->get<std::string>() + "'");
  }
  return result.sources_.empty() ? std::nullopt : std::optional(std::move(result));
}

std::optional<ChatTemplate> ChatTemplate::load(const std::filesystem::path& model) {
  namespace fs = std::filesystem;
  if (fs::is_regular_file(model))
    return from_config(Json(tokenizer_config_from_gguf(GgufFile(model))),
                       model.filename().string());
  if (!fs::is_directory(model))
    fail(ErrorKind::kIo, kWhere, model.string(), ": neither a folder nor a file");

  ChatTemplate result;
  const fs::path single = model / "chat_template.jinja", more = model / "additional_chat_templates";
  if (fs::exists(single))
    result.add("default", read_text_file(kWhere, single, kMaxTemplateBytes),
               single.filename().string());
  if (fs::is_directory(more))
    for (const auto& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja")
        result.add(entry.path().stem().string(),
                   read_text_file(kWhere, entry.path(), kMaxTemplateBytes),
                   entry.path().filename().string());

  for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
    if (!fs::exists(model / name)) continue;
    const Json config = read_json(model / name);
    result.add_special_tokens(config);
    if (!result.sources_.empty()) continue;
    if (auto loaded = from_config(config, name)) result.sources_ = std::move(loaded->sources_);
  }
  if (fs::exists(model / "special_tokens_map.json"))
    result.add_special_tokens(read_json(model / "special_tokens_map.json"));
  return result.sources_.empty() ? std::nullopt : std::optional(std::move(result));
}

std::vector<std::string> ChatTemplate::names() const {
  std::vector<std::string> names;
  for (const auto& [name, source] : sources_) names.push_back(name);
  return names;
}

const ChatTemplate::Source& ChatTemplate::choose(const std::string& name, bool has_tools) const {
  std::string wanted = name;
  if (wanted.empty())
    wanted = has_tools && sources_.count("tool_use") != 0 ? "tool_use" : "default";
  const auto found = sources_.find(wanted);
  if (found != sources_.end()) return *found->second;
  std::string all;
  for (const std::string& other : names()) all += (all.empty() ? "" : ", ") + other;
  fail(ErrorKind::kInvalidArgument, kWhere, "there is no template named '", wanted,
       "', only: ", all);
}

std::string ChatTemplate::render(const Json& messages, const Json& tools,
                                 const ChatOptions& options) const {
  return render_with_spans(messages, tools, options).text;
}

jinja::Rendering ChatTemplate::render_with_spans(const Json& messages, const Json& tools,
                                                 const ChatOptions& options) const {
  require_objects(messages, "messages");
  require(!messages.empty(), kWhere, "messages is empty, at least one message expected");
  if (!tools.is_null()) require_objects(tools, "tools");
  if (!options.documents.is_null()) require_objects(options.documents, "documents");

  Json variables = special_tokens_;
  if (options.bos) variables["bos_token"] = *options.bos;
  if (options.eos) variables["eos_token"] = *options.eos;
  for (const auto& [key, value] : options.extra.items()) variables[key] = value;
  Json chat = Json::array();
  for (const Json& message : messages) chat.push_back(normalized_message(message));
  variables["messages"] = std::move(chat);
  variables["tools"] = tools;
  variables["documents"] = options.documents;
  variables["add_generation_prompt"] = options.add_generation_prompt;
  return choose(options.name, !tools.is_null()).get().render(variables, options.now);
}

}  // namespace signround
