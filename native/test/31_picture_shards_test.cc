// Shards of pictures: the same bytes for any number of threads, nothing half there; and pictures read out of them.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "check.h"
#include "data/picture_input.h"
#include "data/picture_stream.h"
#include "data/shard_pack.h"
#include "pictures.h"

using namespace lth;
using namespace lth::test;

namespace {

constexpr int64_t kPictures = 40;

struct Fixture {
  Folder folder;
  std::shared_ptr<const PictureSet> set;

  Fixture() {
    std::string names;
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < kPictures; ++i) {
      const std::string name = "p" + std::to_string(i) + ".JPEG";
      auto file = i == 5 ? png_of(test_picture(50, 90)) : jpeg_of(test_picture(40 + 3 * i, 120 - 2 * i, i == 7 ? 1 : 3, static_cast<uint64_t>(i)));
      if (i == 11) file.resize(file.size() / 2);
      if (i == 12) file.clear();
      write_file(folder / name, file);
      names += name + '\0';
      labels.push_back(static_cast<int32_t>(i % 5));
    }
    set = std::make_shared<PictureSet>(folder.path.string(), names, labels, 5, "digest");
  }
};

PackOptions options(int threads) { return {.short_side = 32, .quality = 90, .threads = threads}; }
ShardOptions shard_of(const std::string& path, int64_t from = 0) {
  return {.path = path, .metadata = {{"key", "value"}}, .from = from, .bytes = 20000};
}

const auto go_on = [] { return false; };

PackedShard pack(ShardPacker& packer, const ShardOptions& o) {
  std::atomic<int64_t> done{0};
  const auto shard = packer.pack(o, go_on, done);
  CHECK(shard.has_value());
  CHECK_EQUAL(done.load(), shard->pictures);
  return *shard;
}

struct Decoded {
  int64_t height, width;
  bool grey;
  int orientation;
  std::vector<uint8_t> pixels;
};
Decoded decoded(std::span<const std::byte> file) {
  PictureReader reader;
  reader.open(file, "file");
  Decoded d{reader.height(), reader.width(), reader.grey(), reader.orientation(), {}};
  const Patch patch = reader.read({.height = d.height, .width = d.width}, 1);
  for (int64_t y = 0; y < d.height; ++y) d.pixels.insert(d.pixels.end(), patch.pixels + y * patch.stride, patch.pixels + y * patch.stride + 3 * d.width);
  return d;
}

}  // namespace

TEST("a JPEG of high quality has the pixels that went in, within what its transform and its half chroma lose; grey stays grey") {
  JpegEncoder encoder;
  for (const int orientation : {1, 6}) {
    for (const bool grey : {false, true}) {
      TestPicture p = test_picture(70, 53);
      for (size_t i = 0; i < p.pixels.size(); ++i) p.pixels[i] = p.pixels[i / 3 * 3];  // no chroma to lose
      const Patch patch{.pixels = p.pixels.data(), .stride = 53 * 3, .height = 70, .width = 53};
      const auto bytes = encoder.encode(patch, grey, 100, orientation, "p");
      const Decoded d = decoded(bytes);
      CHECK_EQUAL(d.height, 70);
      CHECK_EQUAL(d.width, 53);
      CHECK_EQUAL(d.grey, grey);
      CHECK_EQUAL(d.orientation, orientation);
      // A restart marker every 64 pixels: of blocks of all colours every 4, of grey ones every 8.
      const auto interval = {std::byte{0xff}, std::byte{0xdd}, std::byte{0}, std::byte{4}, std::byte{0}, static_cast<std::byte>(grey ? 8 : 4)};
      CHECK(std::search(bytes.begin(), bytes.end(), interval.begin(), interval.end()) != bytes.end());
      int most = 0;
      for (size_t i = 0; i < p.pixels.size(); ++i) most = std::max(most, std::abs(p.pixels[i] - d.pixels[i]));
      CHECK(most <= 3);
    }
  }
  const std::vector<uint8_t> wide(3 * 70000);
  const Patch patch{.pixels = wide.data(), .stride = 3 * 70000, .height = 1, .width = 70000};
  CHECK_THROWS({ encoder.encode(patch, false, 90, 1, "wide.png"); }, "unsupported", {"wide.png", "65500"});
  // And goes on with the next one.
  const Patch small{.pixels = wide.data(), .stride = 30, .height = 10, .width = 10};
  CHECK_EQUAL(decoded(encoder.encode(small, false, 90, 1, "small")).width, 10);
}

TEST("shards have the same bytes for any number of threads, end where their size says, and hold every row once") {
  const Fixture f;
  std::vector<std::vector<std::byte>> expected;
  std::vector<int64_t> begins, broken;
  for (int64_t row = 0; row < kPictures;) {
    const std::string path = f.folder / "shard";
    ShardPacker packer(f.set, options(1));
    const PackedShard shard = pack(packer, shard_of(path, row));
    for (const auto& one : shard.broken) broken.push_back(one.row);
    expected.push_back(read_file(path, 1 << 20));
    begins.push_back(row);
    CHECK_EQUAL(static_cast<int64_t>(expected.back().size()), shard.bytes);
    row += shard.pictures;
  }
  CHECK(expected.size() > 2);
  CHECK_EQUAL(broken, (std::vector<int64_t>{11, 12}));
  // One packer, shard after shard, then all of them backwards.
  for (const int threads : {1, 2, 7}) {
    ShardPacker packer(f.set, options(threads));
    for (size_t i = 0; i < 2 * begins.size(); ++i) {
      const size_t which = i < begins.size() ? i : 2 * begins.size() - 1 - i;
      const std::string path = f.folder / "other";
      pack(packer, shard_of(path, begins[which]));
      CHECK(read_file(path, 1 << 20) == expected[which]);
    }
  }
}

TEST("a shard has one picture at least, and where nothing is to become smaller the files' own bytes") {
  const Fixture f;
  ShardPacker packer(f.set, {.short_side = 0, .threads = 3});
  ShardOptions o = shard_of(f.folder / "one", 2);
  o.bytes = 1;
  CHECK_EQUAL(pack(packer, o).pictures, 1);
  const auto file = read_file(f.folder / "p2.JPEG", 1 << 20), shard = read_file(f.folder / "one", 1 << 20);
  CHECK(std::search(shard.begin(), shard.end(), file.begin(), file.end()) != shard.end());
}

TEST("what is stopped, or cannot read a picture's file, leaves no shard; a packer goes on after either") {
  const Fixture f;
  std::atomic<int64_t> done{0};
  ShardPacker packer(f.set, options(3));
  pack(packer, shard_of(f.folder / "expected"));
  const auto expected = read_file(f.folder / "expected", 1 << 20);
  const int before = f.folder.files();
  CHECK(!packer.pack(shard_of(f.folder / "shard"), [&] { return done > 3; }, done).has_value());
  CHECK_THROWS({ packer.pack(shard_of(f.folder / "none/shard"), go_on, done); }, "io", {"none/shard"});
  CHECK_EQUAL(f.folder.files(), before);
  pack(packer, shard_of(f.folder / "shard"));
  CHECK(read_file(f.folder / "shard", 1 << 20) == expected);
  std::filesystem::remove(f.folder / "p4.JPEG");
  ShardPacker fresh(f.set, options(3));
  CHECK_THROWS({ fresh.pack(shard_of(f.folder / "shard"), go_on, done); }, "io", {"p4.JPEG"});
  CHECK_EQUAL(f.folder.files(), before);  // one more, one less
}

TEST("who stops a packer ends what it is at, and everything that comes") {
  const Fixture f;
  const int before = f.folder.files();
  std::atomic<int64_t> done{0};
  ShardPacker packer(f.set, options(3));
  const auto stopping = [&] {
    if (done > 2) packer.stop();
    return false;
  };
  CHECK(!packer.pack(shard_of(f.folder / "shard"), stopping, done).has_value());
  CHECK(!packer.pack(shard_of(f.folder / "shard"), go_on, done).has_value());
  CHECK_EQUAL(f.folder.files(), before);
}

TEST("pictures of shards are those of their ranges, and ranges beyond a file are refused") {
  const Folder folder;
  const auto a = jpeg_of(test_picture(30, 40, 3, 1)), b = jpeg_of(test_picture(20, 50, 3, 2)), c = jpeg_of(test_picture(60, 50, 3, 3));
  auto two = a;
  two.insert(two.end(), b.begin(), b.end());
  write_file(folder / "x", two);
  write_file(folder / "y", c);
  const auto size = [](const auto& v) { return static_cast<uint32_t>(v.size()); };
  PictureShards shards{.files = {folder / "x", folder / "y"},
                       .rows = {2, 1},
                       .begins = {0, static_cast<double>(a.size()), 0},
                       .lengths = {size(a), size(b), size(c)}};
  const std::string names("n/a\0n/b\0m/c\0", 12);
  const PictureSet set(shards, names, {0, 0, 1}, 2, "digest");
  std::vector<std::byte> bytes;
  for (const auto& [row, file] : {std::pair{2, &c}, std::pair{0, &a}, std::pair{1, &b}}) {
    CHECK(std::ranges::equal(set.read(row, bytes), *file));
  }
  CHECK_EQUAL(set.path(1), folder / "x: n/b");
  CHECK_EQUAL(set.path(2), folder / "y: m/c");
  for (const double begin : {1.0, -1.0, 1e18, std::nan("")}) {
    PictureShards wrong = shards;
    wrong.begins[2] = begin;
    CHECK_THROWS({ PictureSet(wrong, names, {0, 0, 1}, 2, "d"); }, "corrupt-file", {folder / "y", "m/c"});
  }
  PictureShards wrong = shards;
  wrong.rows = {2, 2};
  CHECK_THROWS({ PictureSet(wrong, names, {0, 0, 1}, 2, "d"); }, "invalid-argument", {});
  wrong.rows = {2, 0};
  CHECK_THROWS({ PictureSet(wrong, names, {0, 0, 1}, 2, "d"); }, "invalid-argument", {});
  wrong = shards;
  wrong.files[1] = folder / "z";
  CHECK_THROWS({ PictureSet(wrong, names, {0, 0, 1}, 2, "d"); }, "io", {folder / "z"});
  // A file that shrinks afterwards.
  std::filesystem::resize_file(folder / "x", a.size() + 3);
  set.read(0, bytes);
  CHECK_THROWS({ set.read(1, bytes); }, "io", {folder / "x"});
}

TEST("ranks have each example of a batch once among them, as one process has it") {
  const Fixture f;
  std::vector<int32_t> rows;
  for (int32_t i = 0; i < 10; ++i) rows.push_back(i);
  const auto stream = [&](int64_t rank, int64_t ranks) {
    return PictureStream(f.set, {.loader = {.crop = {.size = 16}, .threads = 2},
                                 .rows = rows,
                                 .batch = 7,
                                 .seed = 3,
                                 .rank = rank,
                                 .ranks = ranks,
                                 .until = 4});
  };
  PictureStream whole = stream(0, 1);
  PictureStream parts[] = {stream(0, 3), stream(1, 3), stream(2, 3)};
  for (int step = 0; step < 4; ++step) {
    const auto expected = whole.take();
    std::vector<int32_t> all;
    std::vector<uint8_t> images;
    for (PictureStream& part : parts) {
      const auto batch = part.take();
      all.insert(all.end(), batch->rows.begin(), batch->rows.end());
      images.insert(images.end(), batch->images.get(), batch->images.get() + batch->bytes());
    }
    CHECK_EQUAL(all, expected->rows);
    CHECK(std::equal(images.begin(), images.end(), expected->images.get(), expected->images.get() + expected->bytes()));
  }
  CHECK_THROWS({ stream(0, 4); }, "invalid-argument", {"the smallest has 3"});
  CHECK_THROWS({ stream(3, 3); }, "invalid-argument", {});
}
