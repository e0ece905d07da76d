# What `cmake --install` and cpack lay out: bin/sails, and in lib/ the plug-in and the libraries that
# machines may lack, which is all but the C library. It runs from any folder, on any machine whose C
# library is not older than the builder's.

# The old kind of run path (DT_RPATH): it holds for what the libraries need in their turn, too.
target_link_options(sails PRIVATE -Wl,--disable-new-dtags)
install(TARGETS sails RUNTIME_DEPENDENCY_SET libraries RUNTIME DESTINATION bin)
install(RUNTIME_DEPENDENCY_SET libraries
        PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|m|dl|rt|pthread|resolv)\\.so"
        DIRECTORIES ${SERIAL_OPENBLAS_FOLDER}
        LIBRARY DESTINATION lib)
if(TARGET sails_cuda) # CUDA's own libraries are the machine's
  install(TARGETS sails_cuda LIBRARY DESTINATION lib)
endif()
install(FILES LICENSE README.md DESTINATION share/doc/sails)

set(CPACK_GENERATOR TGZ)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_FILE_NAME sails-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
include(CPack)
