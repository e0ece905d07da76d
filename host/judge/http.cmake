# The plug-in for judges behind HTTP, libsails_http.so (host/judge/http.h): one file that needs
# libcurl. Where libcurl is missing all else builds, and other judges judge.

pkg_check_modules(CURL IMPORTED_TARGET libcurl)
if(CURL_FOUND)
  add_library(sails_http MODULE host/judge/http_curl.c)
  target_link_libraries(sails_http PRIVATE PkgConfig::CURL)
  set_target_properties(sails_http PROPERTIES C_VISIBILITY_PRESET hidden
                                              LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
else()
  message(STATUS "no libcurl: the plug-in for judges behind HTTP is not built")
endif()
