# LTH_SANITIZE for the builds of tests: "address" (with undefined behaviour), "thread" or nothing. Sets it for
# everything that is added after this file.
set(LTH_SANITIZE "" CACHE STRING "address (with undefined behaviour), thread, or nothing")
if(LTH_SANITIZE STREQUAL "address")
  # A conversion of what no integer can hold, NaN for one, is undefined as well, but not among GCC's `undefined`.
  set(sanitize -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all)
elseif(LTH_SANITIZE STREQUAL "thread")
  set(sanitize -fsanitize=thread)
elseif(LTH_SANITIZE)
  message(FATAL_ERROR "LTH_SANITIZE is \"${LTH_SANITIZE}\": expected address, thread or nothing")
endif()
if(sanitize)
  add_compile_options(${sanitize} -O1 -g -fno-omit-frame-pointer)
  add_link_options(${sanitize})
  # Bounds of std::vector and std::span, which need not be those of an allocation.
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
endif()
