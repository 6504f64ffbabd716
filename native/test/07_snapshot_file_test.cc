// Snapshots and masks on disk.
#include <cmath>
#include <cstring>
#include <limits>

#include "analyse/prune.h"
#include "check.h"
#include "core/bitmask.h"
#include "core/snapshot_file.h"
#include "networks.h"

using namespace lth;
using test::drawn;
using test::Folder;
using test::lenet;
using test::values;

namespace {

std::shared_ptr<const ParameterLayout> layout_of(std::vector<int64_t> widths) {
  return compile(lenet(std::move(widths), {1, 5, 5}, 3))->layout;
}

template <typename T>
Snapshot trained(std::shared_ptr<const ParameterLayout> layout, std::vector<std::string> states) {
  Snapshot s = drawn<T>(layout, 1);
  s.step = 500;
  s.optimiser_updates = 499;
  s.pending = {-1.0 / 3, 12, 60, true};
  for (size_t i = 0; i < states.size(); ++i)
    s.optimiser.push_back({states[i], drawn<T>(layout, 2 + i).parameters});
  return s;
}

bool same(const Arena& a, const Arena& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

// Writes the snapshot's tensors after `change` had its way with them.
template <typename F>
void forge(const Snapshot& s, const std::string& path, F&& change) {
  write_snapshot(s, path, {}, true);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorOut> tensors;
  Metadata metadata;
  {
    const SafetensorsFile file(path);
    metadata = file.metadata();
    for (const auto& [name, tensor] : file.tensors()) {
      bytes.emplace_back(tensor.bytes);
      file.read(tensor, bytes.back());
      tensors.push_back({name, tensor.dtype, tensor.shape, {}});
    }
  }
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i].bytes = bytes[i];
  change(tensors, metadata);
  write_safetensors(path, tensors, metadata);
}

TensorOut& named(std::vector<TensorOut>& tensors, const std::string& name) {
  for (TensorOut& t : tensors) {
    if (t.name == name) return t;
  }
  throw Error("test", name);
}

}  // namespace

TEST("a snapshot is read back bit for bit, in both precisions and with any optimiser") {
  const Folder folder;
  const auto layout = layout_of({7, 6});
  const auto check = [&](const Snapshot& s) {
    write_snapshot(s, folder / "s", {{"note", "mine"}}, true);
    const auto back = read_snapshot(layout, folder / "s");
    CHECK(back->dtype == s.dtype);
    CHECK_EQUAL(back->step, 500);
    CHECK_EQUAL(back->optimiser_updates, 499);
    CHECK(std::memcmp(&back->pending.loss, &s.pending.loss, sizeof(double)) == 0);
    CHECK(back->pending.correct == 12 && back->pending.seen == 60 && back->pending.evaluation);
    CHECK(same(back->parameters, s.parameters));
    CHECK_EQUAL(back->optimiser.size(), s.optimiser.size());
    for (size_t i = 0; i < s.optimiser.size(); ++i) {
      CHECK_EQUAL(back->optimiser[i].name, s.optimiser[i].name);
      CHECK(same(back->optimiser[i].values, s.optimiser[i].values));
    }
    CHECK_EQUAL(SafetensorsFile(folder / "s").metadata().at("note"), "mine");
  };
  check(trained<float>(layout, {"momentum"}));
  check(trained<double>(layout, {"exp_avg", "exp_avg_sq"}));
  check(trained<float>(layout, {"square_avg", "momentum"}));
  check(trained<float>(layout, {}));
}

TEST("names are PyTorch's, with the optimiser's state in front; the state may be left out") {
  const Folder folder;
  const Snapshot s = trained<float>(layout_of({7, 6}), {"momentum"});
  write_snapshot(s, folder / "s", {}, true);
  const SafetensorsFile file(folder / "s");
  CHECK_EQUAL(file.tensors().size(), 12u);
  CHECK_EQUAL(file.tensors().at("momentum.fc1.weight").shape, std::vector<int64_t>{7, 25});
  CHECK_EQUAL(file.tensors().at("fc3.bias").shape, std::vector<int64_t>{3});
  CHECK_EQUAL(file.metadata().at("format"), "lth-train/snapshot/2");
  CHECK_EQUAL(file.metadata().at("step"), "500");
  write_snapshot(s, folder / "s", {}, false);
  CHECK_EQUAL(SafetensorsFile(folder / "s").tensors().size(), 6u);
  CHECK(read_snapshot(s.layout, folder / "s")->optimiser.empty());
}

TEST("moving averages are read back bit for bit, those of running statistics too, with or without the optimiser's state") {
  const Folder folder;
  const auto layout = compile(test::normalised())->layout;
  Snapshot s = trained<float>(layout, {"momentum"});
  s.average = drawn<float>(layout, 9).parameters;
  for (const bool with_optimiser : {true, false}) {
    write_snapshot(s, folder / "s", {}, with_optimiser);
    CHECK_EQUAL(SafetensorsFile(folder / "s").tensors().size(), with_optimiser ? 8u + 6u + 8u : 8u + 8u);
    CHECK(same(read_snapshot(layout, folder / "s")->average, s.average));
  }
  // Some of them are none.
  forge(s, folder / "s", [](std::vector<TensorOut>& tensors, Metadata&) {
    std::erase_if(tensors, [](const TensorOut& t) { return t.name == "average.bn1.running_mean"; });
  });
  CHECK_THROWS({ read_snapshot(layout, folder / "s"); }, "corrupt-file", {"average.bn1.running_mean"});
}

TEST("values that are not finite, and the sign of zero, survive") {
  const Folder folder;
  Snapshot s = trained<float>(layout_of({7, 6}), {});
  values<float>(s.parameters)[0] = std::numeric_limits<float>::quiet_NaN();
  values<float>(s.parameters)[1] = -std::numeric_limits<float>::infinity();
  values<float>(s.parameters)[2] = -0.0f;
  write_snapshot(s, folder / "s", {}, true);
  CHECK(same(read_snapshot(s.layout, folder / "s")->parameters, s.parameters));
}

TEST("a snapshot that does not fit is refused: missing, unknown, reshaped or retyped tensors") {
  const Folder folder;
  const Snapshot s = trained<float>(layout_of({7, 6}), {"momentum"});
  const std::string path = folder / "s";
  using Tensors = std::vector<TensorOut>;
  forge(s, path, [](Tensors& t, Metadata&) {
    std::erase_if(t, [](const TensorOut& x) { return x.name == "fc2.bias"; });
  });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {path, "fc2.bias"});
  forge(s, path, [](Tensors& t, Metadata&) {
    std::erase_if(t, [](const TensorOut& x) { return x.name == "momentum.fc2.bias"; });
  });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {path, "momentum.fc2.bias"});
  forge(s, path, [](Tensors& t, Metadata&) { named(t, "fc1.bias").name = "fc9.bias"; });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {"fc1.bias"});
  forge(s, path, [](Tensors& t, Metadata&) { t.push_back({"more", "F32", {0}, {}}); });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {"unknown tensor more"});
  forge(s, path, [](Tensors& t, Metadata&) { named(t, "fc1.weight").shape = {25, 7}; });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "wrong-shape", {"fc1.weight", "(25,7)", "(7,25)"});
  forge(s, path, [](Tensors& t, Metadata&) {
    named(t, "fc2.weight") = {"fc2.weight", "F64", {3, 7}, named(t, "fc2.weight").bytes};
  });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "wrong-shape", {"fc2.weight", "F64", "F32"});
  forge(s, path, [](Tensors&, Metadata& m) { m["format"] = "lth-train/snapshot/3"; });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file",
               {"lth-train/snapshot/2", "lth-train/snapshot/3"});
  for (const std::string bad : {"", "-1", "1e3", " 5", "99999999999999999999", "18446744073709551615"}) {
    forge(s, path, [&](Tensors&, Metadata& m) { m["step"] = bad; });
    CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {"step"});
  }
  for (const std::string bad : {"", "2", "-1", "true"}) {
    forge(s, path, [&](Tensors&, Metadata& m) { m["pending_evaluation"] = bad; });
    CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {"pending_evaluation"});
  }
  forge(s, path, [](Tensors&, Metadata& m) { m.erase("optimiser_updates"); });
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {"optimiser_updates"});
  write_masks(all_ones(s.layout), path, {});
  CHECK_THROWS({ read_snapshot(s.layout, path); }, "corrupt-file", {"lth-train/masks/1"});
  CHECK_THROWS({ read_snapshot(layout_of({8, 6}), (write_snapshot(s, path, {}, true), path)); },
               "wrong-shape", {"(7,25)", "(8,25)"});
}

TEST("masks are read back bit for bit: one byte a weight on disk, of prunable parameters only") {
  const Folder folder;
  auto spec = lenet({7, 6}, {1, 5, 5}, 3);
  spec.layers.back().prunable = false;
  const auto layout = compile(spec)->layout;
  PruneOptions half;
  half.fraction = 0.5;
  const auto masks = prune(all_ones(layout), drawn<float>(layout, 3), half);
  write_masks(*masks, folder / "m", {{"level", "1"}});
  const SafetensorsFile file(folder / "m");
  CHECK_EQUAL(file.tensors().size(), 2u);
  CHECK_EQUAL(file.tensors().at("fc1.weight").bytes, 175u);
  CHECK_EQUAL(file.tensors().at("fc1.weight").dtype, "BOOL");
  CHECK_EQUAL(file.metadata().at("format"), "lth-train/masks/1");
  const auto back = read_masks(layout, folder / "m");
  CHECK(back->words == masks->words);
  CHECK(back->remaining == masks->remaining);
}

TEST("masks that do not fit are refused") {
  const Folder folder;
  const auto layout = layout_of({7, 6});
  const std::string path = folder / "m";
  std::vector<std::byte> ones(175, std::byte{1}), more(42, std::byte{1}), last(18, std::byte{1});
  const auto put = [&](const char* dtype, std::vector<int64_t> shape) {
    write_safetensors(path,
                      {{"fc1.weight", dtype, std::move(shape), ones},
                       {"fc2.weight", "BOOL", {6, 7}, more},
                       {"fc3.weight", "BOOL", {3, 6}, last}},
                      {{"format", "lth-train/masks/1"}});
  };
  put("BOOL", {7, 25});
  CHECK_EQUAL(read_masks(layout, path)->remaining[0], 175);
  ones[174] = std::byte{2};
  put("BOOL", {7, 25});
  CHECK_THROWS({ read_masks(layout, path); }, "corrupt-file", {path, "fc1.weight entry 174 is 2"});
  put("U8", {7, 25});
  CHECK_THROWS({ read_masks(layout, path); }, "wrong-shape", {"U8", "BOOL"});
  put("BOOL", {25, 7});
  CHECK_THROWS({ read_masks(layout, path); }, "wrong-shape", {"(25,7)", "(7,25)"});
  write_snapshot(drawn<float>(layout, 1), path, {}, true);
  CHECK_THROWS({ read_masks(layout, path); }, "corrupt-file", {"lth-train/snapshot/2"});
}
