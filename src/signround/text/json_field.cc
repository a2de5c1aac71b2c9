#include "signround/text/json_field.h"

#include "signround/base/error.h"

namespace signround {

namespace {

[[noreturn]] void wrong(const nlohmann::json* value, const char* field, const char* expected,
                        const char* where) {
  fail(ErrorKind::kCorruptFile, where, "field \"", field, "\" is ",
       value ? value->type_name() : "missing", ", expected ", expected);
}

}  // namespace

const nlohmann::json* find_field(const nlohmann::json& object, const char* field) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(field);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

bool bool_field(const nlohmann::json& object, const char* field, bool fallback, const char* where) {
  const auto* v = find_field(object, field);
  if (!v) return fallback;
  if (!v->is_boolean()) wrong(v, field, "true or false", where);
  return v->get<bool>();
}

std::string string_field(const nlohmann::json& object, const char* field, const char* where) {
  const auto* v = find_field(object, field);
  if (!v || !v->is_string()) wrong(v, field, "a string", where);
  return v->get<std::string>();
}

std::string string_field(const nlohmann::json& object, const char* field, const char* fallback,
                         const char* where) {
  return find_field(object, field) ? string_field(object, field, where) : fallback;
}

int64_t int_field(const nlohmann::json& object, const char* field, int64_t fallback,
                  const char* where) {
  const auto* v = find_field(object, field);
  if (!v) return fallback;
  if (!v->is_number_integer()) wrong(v, field, "an integer", where);
  return v->get<int64_t>();
}

}  // namespace signround
