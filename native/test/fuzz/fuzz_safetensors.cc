// Safetensors files from outside, and snapshots and masks made of them.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "analyse/prune.h"
#include "core/error.h"
#include "core/snapshot_file.h"
#include "fuzz/seeds.h"
#include "networks.h"

namespace {

// One file of this process's own, rewritten for each input.
struct Scratch {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("lth-fuzz-" + std::to_string(::getpid()));
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
};

const std::string& scratch() {
  static const Scratch file;
  static const std::string path = file.path.string();
  return path;
}

std::shared_ptr<const lth::ParameterLayout> layout() {
  static const auto tiny = lth::compile(lth::test::lenet({2}, {3}, 2))->layout;
  return tiny;
}

Bytes contents() {
  const auto bytes = lth::read_file(scratch(), 1 << 20);
  const auto* first = reinterpret_cast<const uint8_t*>(bytes.data());
  return {first, first + bytes.size()};
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  std::vector<Bytes> seeds;
  lth::Snapshot s = lth::test::drawn<float>(layout(), 1);
  s.optimiser.push_back({"momentum", lth::test::drawn<float>(layout(), 2).parameters});
  lth::write_snapshot(s, scratch(), {{"a\"\\\n", "\xc3\xa9"}}, true);
  seeds.push_back(contents());
  lth::write_masks(lth::all_ones(layout()), scratch(), {});
  seeds.push_back(contents());
  const double x[] = {1, 2};
  lth::write_safetensors(
      scratch(), {{"x", "F64", {2, 1}, std::as_bytes(std::span(x))}, {"empty", "I64", {0, 3}, {}}}, {});
  seeds.push_back(contents());
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Most mutations break the first eight bytes' promise, so the header is tried by itself as well.
  if (size > 8) {
    try {
      std::map<std::string, lth::TensorIn> tensors;
      lth::Metadata metadata;
      const std::string_view header(reinterpret_cast<const char*>(data) + 8, size - 8);
      lth::parse_safetensors_header(header.substr(0, header.rfind('}') + 1), data[0], tensors, metadata);
      uint64_t total = 0;
      for (const auto& [name, tensor] : tensors) total += tensor.bytes;
      if (total != data[0]) std::abort();
    } catch (const lth::Error&) {
    }
  }
  std::ofstream(scratch(), std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  try {
    const lth::SafetensorsFile file(scratch());
    for (const auto& [name, tensor] : file.tensors()) {
      if (tensor.bytes > size || tensor.first > size - tensor.bytes) std::abort();
      std::vector<std::byte> bytes(tensor.bytes);
      file.read(tensor, bytes);
    }
  } catch (const lth::Error&) {
  }
  try {
    lth::read_snapshot(layout(), scratch());
  } catch (const lth::Error&) {
  }
  try {
    const auto masks = lth::read_masks(layout(), scratch());
    if (!lth::is_nested(*masks, lth::all_ones(layout()))) std::abort();
  } catch (const lth::Error&) {
  }
  return 0;
}
