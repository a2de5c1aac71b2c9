// json_value FILE POINTER...: prints what lies at each JSON pointer, one a line; strings without
// quotes, the number of members for "POINTER#". Exit code 1 if it is not there.
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

int main(int argc, char** argv) {
  if (argc < 3) return std::cerr << "usage: json_value FILE POINTER...\n", 2;
  try {
    std::ifstream in(argv[1]);
    const auto json = nlohmann::json::parse(in);
    for (int i = 2; i < argc; ++i) {
      std::string pointer = argv[i];
      const bool count = pointer.ends_with('#');
      if (count) pointer.pop_back();
      const auto& value = json.at(nlohmann::json::json_pointer(pointer));
      if (count)
        std::cout << value.size() << '\n';
      else
        std::cout << (value.is_string() ? value.get<std::string>() : value.dump()) << '\n';
    }
  } catch (const std::exception& error) {
    std::cerr << "json_value " << argv[1] << ": " << error.what() << '\n';
    return 1;
  }
  return 0;
}
