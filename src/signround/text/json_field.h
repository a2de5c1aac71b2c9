// Fields of a JSON object with their types checked: a wrong type is an Error that names the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace signround {

// `where` names the part of the file. A missing or null field is `fallback`; without one it is an
// error.
bool bool_field(const nlohmann::json& object, const char* field, bool fallback, const char* where);
std::string string_field(const nlohmann::json& object, const char* field, const char* where);
std::string string_field(const nlohmann::json& object, const char* field, const char* fallback,
                         const char* where);
int64_t int_field(const nlohmann::json& object, const char* field, int64_t fallback,
                  const char* where);
// The field, or null if it is missing or `object` is none.
const nlohmann::json* find_field(const nlohmann::json& object, const char* field);

}  // namespace signround
