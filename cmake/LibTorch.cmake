# Finds LibTorch in the folder given as LIBTORCH_DIR (it holds lib/ and include/) and defines the target LibTorch.
# PyTorch's own package file is not used: it fails for a CUDA wheel on a machine without the CUDA toolkit, which is
# the normal GPU user.
if(NOT LIBTORCH_DIR)
  message(FATAL_ERROR "LIBTORCH_DIR is not set. Build with `npm ci`, which finds or fetches LibTorch, or pass "
                      "-DLIBTORCH_DIR=FOLDER (the folder that holds lib/libtorch_cpu.so and include/ATen).")
endif()
if(NOT EXISTS "${LIBTORCH_DIR}/include/ATen/core/Tensor.h")
  message(FATAL_ERROR "No LibTorch headers in ${LIBTORCH_DIR}/include")
endif()

foreach(name c10 torch_cpu)
  find_library(LIBTORCH_${name} ${name} PATHS "${LIBTORCH_DIR}/lib" NO_DEFAULT_PATH REQUIRED)
endforeach()
foreach(name c10_cuda torch_cuda)
  find_library(LIBTORCH_${name} ${name} PATHS "${LIBTORCH_DIR}/lib" NO_DEFAULT_PATH)
endforeach()

add_library(LibTorch INTERFACE)
target_include_directories(LibTorch SYSTEM INTERFACE "${LIBTORCH_DIR}/include"
                                                     "${LIBTORCH_DIR}/include/torch/csrc/api/include")
target_link_libraries(LibTorch INTERFACE ${LIBTORCH_torch_cpu} ${LIBTORCH_c10})
if(LIBTORCH_torch_cuda AND LIBTORCH_c10_cuda)
  set(LTH_CUDA ON)
  # The headers of CUDA's runtime, not its compiler: pip puts them beside torch, a toolkit where CUDA_HOME says.
  get_filename_component(LIBTORCH_SITE "${LIBTORCH_DIR}" DIRECTORY)
  foreach(header cuda_runtime_api.h crt/host_defines.h)
    string(MAKE_C_IDENTIFIER "CUDA_${header}" found)
    unset(${found} CACHE)  # of another LibTorch, perhaps
    find_path(${found} ${header}
              HINTS "$ENV{CUDA_HOME}/include" "$ENV{CUDA_PATH}/include" "${LIBTORCH_SITE}/nvidia/cu13/include"
                    "${LIBTORCH_SITE}/nvidia/cuda_runtime/include" "${LIBTORCH_SITE}/nvidia/cuda_nvcc/include"
                    "/usr/local/cuda/include")
    if(NOT ${found})
      message(FATAL_ERROR "LibTorch in ${LIBTORCH_DIR} has CUDA, but CUDA's header ${header} is nowhere: neither in "
                          "CUDA_HOME (\"$ENV{CUDA_HOME}\") nor beside torch. Set CUDA_HOME to a CUDA toolkit, or "
                          "type: pip install nvidia-cuda-runtime nvidia-cuda-crt, in the versions of torch's CUDA.")
    endif()
    target_include_directories(LibTorch SYSTEM INTERFACE "${${found}}")
  endforeach()
  # It registers its kernels when it is loaded, so it must be linked whatever we name of it. Of CUDA's runtime, which it
  # brings with it, we name a symbol too.
  target_link_libraries(LibTorch INTERFACE -Wl,--no-as-needed ${LIBTORCH_torch_cuda} ${LIBTORCH_c10_cuda}
                                           -Wl,--as-needed)
else()
  set(LTH_CUDA OFF)
endif()
