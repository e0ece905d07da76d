# Every tests/fuzz_<thing>.c is a libFuzzer program over data/, model/ and host/, built with Clang
# and AddressSanitizer + UBSan. Under ctest each runs for SAILS_FUZZ_SECONDS from
# tests/fuzz_seeds/<thing>, which also holds every input that ever failed.
option(SAILS_FUZZ "build the fuzzers (needs Clang)" OFF)
set(SAILS_FUZZ_SECONDS 10 CACHE STRING "seconds that ctest runs each fuzzer")
if(NOT SAILS_FUZZ)
  return()
endif()
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "SAILS_FUZZ needs Clang: configure with -DCMAKE_C_COMPILER=clang")
endif()

# Instrumented loops do not become vectors as their pragmas ask: no reason to warn.
set(FUZZ_FLAGS -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
               -Wno-pass-failed)
file(GLOB FUZZ_SRC CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/data/base/*.c
     ${PROJECT_SOURCE_DIR}/data/*.c ${PROJECT_SOURCE_DIR}/model/*.c ${PROJECT_SOURCE_DIR}/host/*/*.c)
list(FILTER FUZZ_SRC EXCLUDE REGEX "_curl\\.c$") # of a plug-in
add_library(fuzz_code STATIC ${FUZZ_SRC})
target_compile_options(fuzz_code PRIVATE ${FUZZ_FLAGS} -fsanitize=fuzzer-no-link)
target_link_libraries(fuzz_code PUBLIC sails_kernels PkgConfig::FILES PkgConfig::PCRE2)

add_custom_target(fuzzers)
file(GLOB FUZZERS CONFIGURE_DEPENDS fuzz_*.c)
foreach(src ${FUZZERS})
  get_filename_component(name ${src} NAME_WE)
  string(REPLACE "fuzz_" "" thing ${name})
  set(grown ${CMAKE_CURRENT_BINARY_DIR}/corpus_${thing})
  file(MAKE_DIRECTORY ${grown})
  add_executable(${name} ${src})
  target_compile_options(${name} PRIVATE ${FUZZ_FLAGS} -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE ${FUZZ_FLAGS} -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE fuzz_code)
  add_dependencies(fuzzers ${name})
  set(seeds)
  if(IS_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/fuzz_seeds/${thing})
    set(seeds ${CMAKE_CURRENT_SOURCE_DIR}/fuzz_seeds/${thing})
  endif()
  add_test(NAME ${name} COMMAND ${name} -max_total_time=${SAILS_FUZZ_SECONDS} -timeout=20
                                -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1
                                -artifact_prefix=${CMAKE_CURRENT_BINARY_DIR}/${thing}-
                                ${grown} ${seeds})
  set_tests_properties(${name} PROPERTIES LABELS fuzz WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
endforeach()
