// Snapshots and masks whose outer form is right, so that mutations reach what stands inside. The input describes a file,
// one line each: `step=3` for metadata, `:fc1.weight F32 2,3 1` for a tensor of that shape filled with bytes of 1. The
// file made of it has a true header length, and offsets that tile the body unless the line says so.
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "analyse/prune.h"
#include "core/snapshot_file.h"
#include "fuzz/scratch.h"
#include "networks.h"

namespace {

std::shared_ptr<const lth::ParameterLayout> layout() {
  static const auto tiny = lth::compile(lth::test::lenet({2}, {3}, 2))->layout;
  return tiny;
}

// Bytes that a tensor of the shape `2,3` takes, for a body that holds so much; nothing for what is no shape.
uint64_t bytes_of(const std::string& dtype, const std::string& shape) {
  uint64_t bytes = dtype == "F64" || dtype == "I64" ? 8 : dtype == "F32" || dtype == "I32" ? 4 : 1;
  std::istringstream in(shape);
  for (std::string extent; std::getline(in, extent, ',');) bytes *= std::strtoul(extent.c_str(), nullptr, 10);
  return bytes;
}

Bytes file_of(const std::string& description) {
  std::string metadata, tensors;
  Bytes body;
  std::istringstream lines(description);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line[0] == ':') {
      std::istringstream words(line.substr(1));
      std::string name, dtype, shape, fill, shift;
      words >> name >> dtype >> shape >> fill >> shift;
      const uint64_t bytes = bytes_of(dtype, shape);
      const uint64_t first = body.size() + std::strtoul(shift.c_str(), nullptr, 10);
      tensors += ",\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
                 std::to_string(first) + "," + std::to_string(first + bytes) + "]}";
      body.resize(body.size() + std::min<uint64_t>(bytes, 4096),
                  static_cast<uint8_t>(std::strtoul(fill.c_str(), nullptr, 10)));
    } else if (const size_t equals = line.find('='); equals != line.npos) {
      metadata += (metadata.empty() ? "\"" : ",\"") + line.substr(0, equals) + "\":\"" + line.substr(equals + 1) + "\"";
    }
  }
  const std::string header = "{\"__metadata__\":{" + metadata + "}" + tensors + "}";
  Bytes file(8);
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<uint8_t>(header.size() >> 8 * i);
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), body.begin(), body.end());
  return file;
}

// What was read is written and read again: the same.
void check(const lth::Snapshot& s) {
  static const OutputInMemory file;
  if (s.step < 0 || s.optimiser_updates < 0 || s.pending.correct < 0 || s.pending.seen < 0 || s.optimiser.size() > 4)
    std::abort();
  lth::write_snapshot(s, file.path(), {}, true);
  const auto again = lth::read_snapshot(layout(), file.path());
  const auto same = [](const lth::Arena& a, const lth::Arena& b) {
    return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size()) == 0);
  };
  if (again->step != s.step || again->optimiser_updates != s.optimiser_updates || again->dtype != s.dtype ||
      std::memcmp(&again->pending, &s.pending, sizeof s.pending) != 0 || !same(again->parameters, s.parameters) ||
      !same(again->average, s.average) ||
      again->optimiser.size() != s.optimiser.size())
    std::abort();
  for (size_t i = 0; i < s.optimiser.size(); ++i) {
    if (s.optimiser[i].name != again->optimiser[i].name || !same(s.optimiser[i].values, again->optimiser[i].values))
      std::abort();
  }
}

Bytes text(const std::string& s) { return {s.begin(), s.end()}; }

// The lines of the network's tensors, e.g. with the prefix "momentum.".
std::string lines(const std::string& prefix, const std::string& dtype) {
  std::string all;
  for (const lth::ParameterSpec& p : layout()->parameters) {
    if (dtype == "BOOL" && !p.prunable) continue;
    std::string shape;
    for (const int64_t extent : p.shape) shape += (shape.empty() ? "" : ",") + std::to_string(extent);
    all += ":" + prefix + p.name + " " + dtype + " " + shape + " 1\n";
  }
  return all;
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  const std::string snapshot =
      "format=lth-train/snapshot/2\nstep=3\noptimiser_updates=2\npending_loss_bits=4614253070214989087\n"
      "pending_correct=7\npending_seen=60\npending_evaluation=1\n";
  return {
      text(snapshot + lines("", "F32")),
      text(snapshot + lines("", "F64") + lines("momentum.", "F64")),
      text(snapshot + lines("", "F32") + lines("momentum.", "F32") + lines("average.", "F32")),
      text(snapshot + "network=lenet\n" + lines("", "F32") + lines("exp_avg.", "F32") + lines("exp_avg_sq.", "F32")),
      text("format=lth-train/masks/1\n" + lines("", "BOOL")),
      text("format=lth-train/masks/1\n:fc1.weight BOOL 2,3 0\n:fc2.weight BOOL 2,2 2\n"),
  };
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static InputInMemory input;
  input.set(file_of(std::string(data, data + size)));
  outcome_of("snapshot", [&] { check(*lth::read_snapshot(layout(), input.path())); });
  outcome_of("masks", [&] {
    const auto masks = lth::read_masks(layout(), input.path());
    if (!lth::is_nested(*masks, lth::all_ones(layout()))) std::abort();
  });
  return 0;
}
