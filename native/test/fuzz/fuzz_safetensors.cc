// Safetensors files from outside, byte by byte, and snapshots and masks made of them. See fuzz_checkpoint for files
// whose outer form is right.
#include <cstdlib>

#include "analyse/prune.h"
#include "core/snapshot_file.h"
#include "core/state_dict.h"
#include "fuzz/scratch.h"
#include "networks.h"

namespace {

std::shared_ptr<const lth::ParameterLayout> layout() {
  static const auto tiny = lth::compile(lth::test::lenet({2}, {3}, 2))->layout;
  return tiny;
}

void look_at(const Bytes& file) {
  static InputInMemory input;
  input.set(file);
  outcome_of("file", [&] {
    const lth::SafetensorsFile opened(input.path());
    for (const auto& [name, tensor] : opened.tensors()) {
      if (tensor.bytes > file.size() || tensor.first > file.size() - tensor.bytes) std::abort();
      std::vector<std::byte> bytes(tensor.bytes);
      opened.read(tensor, bytes);
    }
  });
  outcome_of("snapshot", [&] { lth::read_snapshot(layout(), input.path()); });
  outcome_of("masks", [&] { lth::read_masks(layout(), input.path()); });
  outcome_of("state dict", [&] { lth::read_state_dict(layout(), input.path()); });
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  const OutputInMemory file;
  std::vector<Bytes> seeds;
  lth::Snapshot s = lth::test::drawn<float>(layout(), 1);
  s.optimiser.push_back({"momentum", lth::test::drawn<float>(layout(), 2).parameters});
  lth::write_snapshot(s, file.path(), {{"a\"\\\n", "\xc3\xa9"}}, true);
  seeds.push_back(file.contents());
  lth::write_masks(lth::all_ones(layout()), file.path(), {});
  seeds.push_back(file.contents());
  const double x[] = {1, 2};
  lth::write_safetensors(
      file.path(), {{"x", "F64", {2, 1}, std::as_bytes(std::span(x))}, {"empty", "I64", {0, 3}, {}}}, {});
  seeds.push_back(file.contents());
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes file(data, data + size);
  look_at(file);
  if (size <= 8) return 0;
  // Most mutations move the header's end, which the first eight bytes promise: once more with a true promise.
  const std::string_view rest(reinterpret_cast<const char*>(data) + 8, size - 8);
  const size_t behind = rest.rfind("]}");
  const uint64_t length = behind == rest.npos ? rest.size() : std::min(rest.size(), (behind + 3 + 7) / 8 * 8);
  bool same = true;
  for (size_t i = 0; i < 8; ++i) {
    same = same && file[i] == static_cast<uint8_t>(length >> 8 * i);
    file[i] = static_cast<uint8_t>(length >> 8 * i);
  }
  if (!same) look_at(file);
  return 0;
}
