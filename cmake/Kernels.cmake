# Compile flags of the kernel files that are written for one instruction set; they are chosen at run time, so what
# users get runs on any CPU. On other processors than x86-64 these files are left out.
function(lth_kernel_flags folder)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    file(GLOB avx2 ${folder}/*_avx2.cc)
    file(GLOB avx512 ${folder}/*_avx512.cc)
    set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
    file(GLOB avx512_bf16 ${folder}/*_avx512_bf16.cc)
    # GCC 12 takes the undefined pass-through operand of its own AVX-512 intrinsics for an uninitialised variable.
    set(flags "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;-mprefer-vector-width=512;-Wno-uninitialized;-Wno-maybe-uninitialized")
    set_source_files_properties(${avx512} PROPERTIES COMPILE_OPTIONS "${flags}")
    set_source_files_properties(${avx512_bf16} PROPERTIES COMPILE_OPTIONS "${flags};-mavx512bf16")
  else()
    list(FILTER LTH_CORE EXCLUDE REGEX "_avx(2|512|512_bf16)\\.cc$")
    set(LTH_CORE ${LTH_CORE} PARENT_SCOPE)
  endif()
endfunction()
