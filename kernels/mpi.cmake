# The MPI plug-in, libsails_mpi.so: one file and one header, by which sails meets the ranks that a
# launcher has started (kernels/transport.h). Where MPI is missing all else builds, and one rank runs.

find_package(MPI COMPONENTS C)
if(MPI_C_FOUND)
  add_library(sails_mpi MODULE kernels/transport_mpi.c)
  target_link_libraries(sails_mpi PRIVATE MPI::MPI_C)
  set_target_properties(sails_mpi PROPERTIES C_VISIBILITY_PRESET hidden
                                             LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
else()
  message(STATUS "no MPI: the plug-in for several ranks is not built")
endif()
