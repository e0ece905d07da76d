# What `cmake --install` and cpack lay out: bin/sails, and in lib/sails the plug-in and the libraries
# that machines may lack. It runs from any folder, on any machine whose C library is not older than
# the builder's. Not lib itself: under /usr/local, every program would find these libraries there.

# The old kind of run path, DT_RPATH. It goes before LD_LIBRARY_PATH, where a site has other versions
# of these libraries, and it holds for what they need in their turn; DT_RUNPATH does neither.
target_link_options(sails PRIVATE -Wl,--disable-new-dtags)
set_target_properties(sails PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/sails")
install(TARGETS sails RUNTIME_DEPENDENCY_SET libraries RUNTIME DESTINATION bin)
if(TARGET sails_http) # with its libcurl: another one would bring another libcrypto than libzip's
  install(TARGETS sails_http RUNTIME_DEPENDENCY_SET libraries LIBRARY DESTINATION lib/sails)
endif()
# libgcc_s comes with every C library, and an old one would be forced upon CUDA's libraries, too.
install(RUNTIME_DEPENDENCY_SET libraries
        PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|m|dl|rt|pthread|resolv|gcc_s)\\.so"
        DIRECTORIES ${SERIAL_OPENBLAS_FOLDER}
        LIBRARY DESTINATION lib/sails)
if(TARGET sails_cuda) # CUDA's own libraries are the machine's
  install(TARGETS sails_cuda LIBRARY DESTINATION lib/sails)
endif()
if(TARGET sails_mpi) # for the MPI that it was built with; its source goes along for others
  install(TARGETS sails_mpi LIBRARY DESTINATION lib/sails)
endif()
install(FILES kernels/transport.h kernels/transport_mpi.c DESTINATION share/sails/kernels)
install(DIRECTORY tools/cluster tools/reproduce DESTINATION share/sails USE_SOURCE_PERMISSIONS)
install(FILES LICENSE README.md host/stage/judge_table.licence.md DESTINATION share/doc/sails)

# Who hands the archive on hands on licences: what Debian says of each library, and the texts that
# this refers to.
install(CODE "set(architecture ${CMAKE_LIBRARY_ARCHITECTURE})") # others' may be installed beside it
install(CODE [[
  set(root $ENV{DESTDIR}${CMAKE_INSTALL_PREFIX})
  set(licenses ${root}/share/doc/sails/licenses)
  file(MAKE_DIRECTORY ${licenses})
  file(GLOB libraries RELATIVE ${root}/lib/sails ${root}/lib/sails/*.so*)
  list(REMOVE_ITEM libraries libsails_cuda.so libsails_http.so libsails_mpi.so)
  foreach(library ${libraries})
    if(IS_SYMLINK ${root}/lib/sails/${library})
      continue()
    endif()
    execute_process(COMMAND dpkg-query -S */${architecture}/*${library} OUTPUT_VARIABLE owner
                    RESULT_VARIABLE unknown ERROR_QUIET)
    string(REGEX MATCH "^[^:,]+" package "${owner}")
    file(REAL_PATH /usr/share/doc/${package}/copyright words)
    if(unknown OR NOT EXISTS ${words})
      message(WARNING "found no licence of ${library}: add it before you hand the archive on")
      continue()
    endif()
    file(COPY_FILE ${words} ${licenses}/${package})
    file(STRINGS ${words} texts REGEX "/usr/share/common-licenses/")
    string(REGEX MATCHALL "common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]" texts "${texts}")
    foreach(text ${texts})
      file(REAL_PATH /usr/share/${text} from)
      get_filename_component(name ${text} NAME)
      file(COPY_FILE ${from} ${licenses}/${name} ONLY_IF_DIFFERENT)
    endforeach()
  endforeach()
]])

set(CPACK_GENERATOR TGZ)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_FILE_NAME sails-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
include(CPack)
add_custom_target(archive COMMAND ${CMAKE_CPACK_COMMAND} WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
add_dependencies(archive sails) # CPack's own target, `package`, builds all tests first
foreach(plugin sails_cuda sails_http sails_mpi)
  if(TARGET ${plugin})
    add_dependencies(archive ${plugin})
  endif()
endforeach()
