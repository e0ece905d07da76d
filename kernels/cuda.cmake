# The CUDA plug-in, libsails_cuda.so: the kernels by nvcc, and the C files that end in _cuda.c.
#
# The toolkit is looked for in SAILS_CUDA_ROOT (a variable here or in the environment), on the
# path, in /usr/local/cuda, and where tools/install.sh puts it. Its headers alone are enough for the
# simulated device.

set(SAILS_CUDA_ARCH "" CACHE STRING
    "compute capability, such as 90, of the one GPU to compile for: the plug-in of another machine")
set(SAILS_CUDA_ROOT "$ENV{SAILS_CUDA_ROOT}" CACHE PATH "the CUDA toolkit, if not found by itself")
set(CUDA_FOLDERS /usr/local/cuda $ENV{HOME}/.cache/sails/cuda)
find_program(SAILS_NVCC nvcc HINTS ${SAILS_CUDA_ROOT} PATHS ${CUDA_FOLDERS} PATH_SUFFIXES bin)
get_filename_component(nvcc_folder "${SAILS_NVCC}" DIRECTORY)
find_path(CUDA_HEADERS cusolverDn.h HINTS ${SAILS_CUDA_ROOT} ${nvcc_folder}/.. PATHS ${CUDA_FOLDERS}
          PATH_SUFFIXES include)

# NCCL's header, for several ranks (kernels/ranks_cuda.c); the library is loaded when they join.
find_path(NCCL_HEADERS nccl.h HINTS ${SAILS_CUDA_ROOT} ${CUDA_HEADERS}/.. PATHS ${CUDA_FOLDERS}
          PATH_SUFFIXES include)

file(GLOB CUDA_KERNELS CONFIGURE_DEPENDS kernels/*.cu)
file(GLOB CUDA_HOST CONFIGURE_DEPENDS kernels/*_cuda.c)
if(CUDA_HEADERS)
  # Built once: the same objects go into the plug-in and into its simulated form (tests/simt). The
  # plug-in has its own copy of exec.c, op_scope.c and check.c, so it needs nothing from the program.
  add_library(cuda_host OBJECT ${CUDA_HOST} kernels/exec.c kernels/op_scope.c kernels/check.c)
  target_include_directories(cuda_host SYSTEM PRIVATE ${CUDA_HEADERS})
  if(NCCL_HEADERS)
    target_include_directories(cuda_host SYSTEM PRIVATE ${NCCL_HEADERS})
  else()
    message(STATUS "no nccl.h: the plug-in works in one rank alone")
  endif()
  set_target_properties(cuda_host PROPERTIES C_VISIBILITY_PRESET hidden)
endif()

set(cuda_release CUDA) # which the program asks for, where its libraries are missing
if(SAILS_CUDA STREQUAL "AUTO" AND NOT (SAILS_NVCC AND CUDA_HEADERS))
  message(STATUS "no CUDA toolkit: the plug-in is not built")
elseif(SAILS_CUDA)
  set(CMAKE_CUDA_COMPILER ${SAILS_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES 80-real) # for CMake's own test of the compiler
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
  string(REGEX REPLACE "\\..*" "" cuda_release "CUDA ${CMAKE_CUDA_COMPILER_VERSION}")
  # Not FindCUDAToolkit: some of its versions fail on a toolkit that has only the parts needed here.
  find_library(CUBLASLT cublasLt REQUIRED HINTS ${CUDA_HEADERS}/.. PATH_SUFFIXES lib64 lib)
  find_library(CUSOLVER cusolver REQUIRED HINTS ${CUDA_HEADERS}/.. PATH_SUFFIXES lib64 lib)
  # CMake leaves out the folders that nvcc searches by itself; the loader does not know them.
  get_filename_component(cublas_folder ${CUBLASLT} REALPATH)
  get_filename_component(cublas_folder ${cublas_folder} DIRECTORY)
  add_library(sails_cuda MODULE ${CUDA_KERNELS} $<TARGET_OBJECTS:cuda_host>)
  # Machine code for the data-centre generations that the compiler knows, PTX of the last for newer.
  # That of 90 comes from 80's PTX, which is the same code for these kernels, in two thirds of the time.
  if(SAILS_CUDA_ARCH GREATER_EQUAL 100)
    set(generations --generate-code=arch=compute_100,code=sm_${SAILS_CUDA_ARCH})
  elseif(SAILS_CUDA_ARCH)
    set(generations --generate-code=arch=compute_80,code=sm_${SAILS_CUDA_ARCH})
  elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
    set(generations --generate-code=arch=compute_80,code=[sm_80,sm_90,compute_80])
  else()
    set(generations --generate-code=arch=compute_80,code=[sm_80,sm_90]
                    --generate-code=arch=compute_100,code=[sm_100,compute_100])
  endif()
  set_target_properties(sails_cuda PROPERTIES
    CUDA_ARCHITECTURES OFF CUDA_VISIBILITY_PRESET hidden
    CUDA_RUNTIME_LIBRARY Static # one library less to be found, and to fit the driver, at start-up
    BUILD_RPATH ${cublas_folder} INSTALL_RPATH /usr/local/cuda/lib64
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  target_compile_options(sails_cuda PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:${generations}>"
    $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wshadow>)
  # DT_RUNPATH comes after LD_LIBRARY_PATH, where `module load cuda` and PyTorch's wheels come from; the
  # program's DT_RPATH does not hold for a file that has one. NVIDIA's libraries have their own.
  # Of libstdc++ it needs little, has that inside, for machines without it, and shows it to nobody.
  target_link_options(sails_cuda PRIVATE -Wl,-z,defs -Wl,--enable-new-dtags
                                         -static-libstdc++ -Wl,--exclude-libs,ALL)
  target_link_libraries(sails_cuda PRIVATE ${CUBLASLT} ${CUSOLVER} m ${CMAKE_DL_LIBS})
endif()
set_property(SOURCE kernels/exec_open.c APPEND PROPERTY COMPILE_DEFINITIONS
             SAILS_CUDA_RELEASE="${cuda_release}")
