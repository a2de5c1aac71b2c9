# signround_library(FOLDER [UNITY] SOURCES a.cc ... APART b.cc ... DEPS target ...): the static library signround_FOLDER.
# Every folder lists its files, so that a file that is not built cannot stay unnoticed. UNITY: with SIGNROUND_UNITY (the
# sanitizer build, whose time is mostly headers and templates compiled again) its files are joined into few large ones; those of
# APART stay alone, because their local names are also those of other files.
function(signround_library folder)
  cmake_parse_arguments(ARG "UNITY" "" "SOURCES;APART;DEPS" ${ARGN})
  if(NOT ARG_SOURCES)
    add_library(signround_${folder} INTERFACE)
    target_include_directories(signround_${folder} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(signround_${folder} INTERFACE ${ARG_DEPS})
    return()
  endif()
  add_library(signround_${folder} STATIC ${ARG_SOURCES} ${ARG_APART})
  target_include_directories(signround_${folder} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(signround_${folder} PUBLIC ${ARG_DEPS})
  signround_flags(signround_${folder})
  signround_unity(signround_${folder} "${ARG_UNITY}" "${ARG_APART}")
endfunction()

# signround_test(FOLDER [UNITY] SOURCES a_test.cc ... APART b_test.cc ... DEPS target ...): one test binary per folder.
function(signround_test folder)
  if(NOT SIGNROUND_DEVELOPER)
    return()
  endif()
  cmake_parse_arguments(ARG "UNITY" "" "SOURCES;APART;DEPS" ${ARGN})
  add_executable(${folder}_test ${ARG_SOURCES} ${ARG_APART})
  target_link_libraries(${folder}_test PRIVATE signround_${folder} signround_testing ${ARG_DEPS} GTest::gtest_main)
  signround_flags(${folder}_test)
  signround_unity(${folder}_test "${ARG_UNITY}" "${ARG_APART}")
  # One process for all tests of a folder: starting the program costs more than most of its tests.
  add_test(NAME unit.${folder} COMMAND ${folder}_test --gtest_brief=1)
  set_tests_properties(unit.${folder} PROPERTIES LABELS unit TIMEOUT 1800)
endfunction()

function(signround_unity target joined apart)
  if(NOT SIGNROUND_UNITY OR NOT joined)
    return()
  endif()
  set_source_files_properties(${apart} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  # kWhere, the place that the errors of a file name, is each file's own.
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12
    UNITY_BUILD_UNIQUE_ID SIGNROUND_FILE UNITY_BUILD_CODE_BEFORE_INCLUDE
"#undef kWhere
#define SIGNROUND_JOIN_(a, b) a##b
#define SIGNROUND_JOIN(a, b) SIGNROUND_JOIN_(a, b)
#define kWhere SIGNROUND_JOIN(kWhere_, SIGNROUND_FILE)")
  # What these two see is the joining; the other presets warn of the files themselves.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage> -Wno-shadow)
endfunction()

function(signround_flags target)
  # The same flags with and without tests, so that the objects of the program and of its tests are the same ones.
  # Designated initializers leave fields out on purpose; GCC 12 sees overlaps in std::string that are not there.
  set(options -fno-math-errno -ffp-contract=off -Wall -Wextra -Wshadow -Wnon-virtual-dtor
    -Wno-missing-field-initializers -Wno-restrict)
  if(SIGNROUND_WERROR)
    list(APPEND options -Werror)
  endif()
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${options}>")
  if(SIGNROUND_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  if(SIGNROUND_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${SIGNROUND_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${SIGNROUND_SANITIZE})
  endif()
endfunction()
