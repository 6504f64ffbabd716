// Batches of pictures: in order, the same for any number of threads, whatever the files are.
#include <atomic>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <thread>

#include "check.h"
#include "data/picture_stream.h"
#include "pictures.h"

using namespace lth;
using namespace lth::test;

namespace {

constexpr int64_t kPictures = 23;

// Pictures of many sizes, one of them a PNG; labels count up to 5.
struct Fixture {
  Folder folder;
  std::shared_ptr<const PictureSet> set;

  explicit Fixture(const std::vector<int64_t>& broken = {}) {
    std::string names;
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < kPictures; ++i) {
      const std::string name = "p" + std::to_string(i) + ".JPEG";
      const TestPicture p = test_picture(40 + 7 * i, 120 - 3 * i, 3, static_cast<uint64_t>(i));
      auto file = i == 5 ? png_of(p) : jpeg_of(p);
      if (std::find(broken.begin(), broken.end(), i) != broken.end()) file.resize(i % 2 ? 0 : file.size() / 2);
      write_file(folder / name, file);
      names += name + '\0';
      labels.push_back(static_cast<int32_t>(i % 5));
    }
    set = std::make_shared<PictureSet>(folder.path.string(), names, labels, 5, "digest");
  }
};

std::vector<int32_t> all_rows() {
  std::vector<int32_t> rows(kPictures);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

StreamOptions options(int threads, int ahead = 3) {
  return {.loader = {.crop = {.size = 32}, .threads = threads, .ahead = ahead},
          .rows = all_rows(),
          .batch = 6,
          .seed = 3,
          .until = 12};
}

using Taken = std::tuple<int64_t, std::vector<int32_t>, std::vector<int32_t>, std::vector<uint8_t>, std::vector<std::string>>;
Taken taken(const PictureBatch& b) {
  std::vector<std::string> why;
  for (const PictureFailure& f : b.failures)
    why.push_back(std::to_string(f.position) + " " + std::to_string(f.row) + " " + std::to_string(f.taken) + " " + f.why);
  return {b.step, b.rows, b.labels, {b.images.get(), b.images.get() + b.bytes()}, why};
}
std::vector<Taken> all_of(PictureStream& stream) {
  std::vector<Taken> all;
  while (const auto batch = stream.take()) all.push_back(taken(*batch));
  return all;
}

}  // namespace

TEST("batches have the same bytes for any number of threads and of batches ahead") {
  const Fixture f({4, 7, 8});
  PictureStream one(f.set, options(1, 1));
  const auto expected = all_of(one);
  CHECK_EQUAL(expected.size(), size_t{12});
  for (const auto& [threads, ahead] : {std::pair{1, 3}, std::pair{2, 2}, std::pair{5, 4}, std::pair{3, 1}}) {
    PictureStream other(f.set, options(threads, ahead));
    CHECK(all_of(other) == expected);
  }
}

TEST("rows follow the data order, epochs their crops; the last batch of an epoch holds what is left") {
  const Fixture f;
  PictureStream stream(f.set, options(3));
  DataOrder order(3, 0, kPictures, 6);
  const auto batches = all_of(stream);
  for (int64_t step = 0; step < 12; ++step) {
    const auto rows = order.batch(step, 0);
    CHECK_EQUAL(std::get<0>(batches[step]), step);
    CHECK(std::equal(rows.begin(), rows.end(), std::get<1>(batches[step]).begin(), std::get<1>(batches[step]).end()));
    CHECK_EQUAL(rows.size(), step % 4 == 3 ? size_t{5} : size_t{6});
    for (size_t i = 0; i < rows.size(); ++i) CHECK_EQUAL(std::get<2>(batches[step])[i], rows[i] % 5);
    // Each picture by itself, of its own epoch.
    for (size_t i = 0; i < rows.size(); ++i) {
      std::vector<std::byte> file;
      const auto bytes = f.set->read(rows[i], file);
      std::vector<uint8_t> alone(3 * 32 * 32);
      const CropKey key{.seed = 3, .epoch = static_cast<uint32_t>(step / 4), .example = rows[i]};
      PictureInput().make(bytes, "alone", {.size = 32}, key, false, {alone.data(), 32, 1, 32 * 32});
      CHECK(std::equal(alone.begin(), alone.end(), std::get<3>(batches[step]).begin() + static_cast<int64_t>(i) * 3 * 32 * 32));
    }
  }
}

TEST("channels come last where that is asked for") {
  const Fixture f;
  StreamOptions last = options(2);
  last.loader.channels_last = true;
  PictureStream a(f.set, options(2)), b(f.set, last);
  const auto planes = a.take(), pixels = b.take();
  for (int64_t n = 0; n < planes->count(); ++n) {
    for (int64_t i = 0; i < 32 * 32; ++i) {
      for (int64_t c = 0; c < 3; ++c)
        CHECK(planes->images[n * 3072 + c * 1024 + i] == pixels->images[n * 3072 + i * 3 + c]);
    }
  }
}

TEST("a seek goes on with any step of any noise, as if all before had been taken") {
  const Fixture f;
  PictureStream whole(f.set, options(2));
  const auto expected = all_of(whole);
  PictureStream stream(f.set, options(2));
  stream.take();
  for (const int64_t step : {7, 2, 11, 0}) {
    stream.seek(step, 0);
    CHECK(taken(*stream.take()) == expected[step]);
    if (step < 11) CHECK(taken(*stream.take()) == expected[step + 1]);
  }
  StreamOptions other = options(2);
  other.noise = 5;
  PictureStream fresh(f.set, other);
  const auto first = taken(*fresh.take());
  CHECK(first != expected[0]);
  stream.seek(0, 5);
  CHECK(taken(*stream.take()) == first);
}

TEST("without a shuffle batches hold the rows as they are") {
  const Fixture f;
  StreamOptions plain = options(2);
  plain.shuffle = false;
  plain.rows = {9, 2, 2, 20, 1, 0, 11, 3};
  plain.until = 3;
  PictureStream stream(f.set, plain);
  const auto batches = all_of(stream);
  CHECK_EQUAL(batches.size(), size_t{3});
  CHECK_EQUAL(std::get<1>(batches[0]), (std::vector<int32_t>{9, 2, 2, 20, 1, 0}));
  CHECK_EQUAL(std::get<1>(batches[1]), (std::vector<int32_t>{11, 3}));
  CHECK(std::get<3>(batches[2]) == std::get<3>(batches[0]));
}

TEST("a picture that cannot be read is named, and the next of its batch that can stands in its place") {
  const Fixture f({4, 7, 8, 22});
  StreamOptions plain = options(3);
  plain.shuffle = false;
  plain.rows = {1, 4, 7, 2, 3, 22, 9, 8};
  plain.batch = 6;
  plain.until = 2;
  PictureStream stream(f.set, plain);
  const auto a = stream.take(), b = stream.take();
  CHECK_EQUAL(a->rows, (std::vector<int32_t>{1, 2, 2, 2, 3, 1}));
  CHECK_EQUAL(a->labels, (std::vector<int32_t>{1, 2, 2, 2, 3, 1}));
  CHECK_EQUAL(b->rows, (std::vector<int32_t>{9, 9}));
  CHECK_EQUAL(a->failures.size(), size_t{3});
  CHECK_EQUAL(a->failures[0].position, int64_t{1});
  CHECK_EQUAL(a->failures[0].row, 4);
  CHECK_EQUAL(a->failures[0].taken, 2);
  CHECK(a->failures[0].why.find("p4.JPEG") != std::string::npos);
  CHECK(a->failures[1].why.find("p7.JPEG: is empty") != std::string::npos);
  const auto same = [&](int64_t x, int64_t y) {
    const uint8_t* first = a->images.get() + x * 3072;
    return std::equal(first, first + 3072, a->images.get() + y * 3072);
  };
  CHECK(same(1, 3) && same(2, 3) && same(5, 0) && !same(3, 0));
}

TEST("a batch without one good picture is an error, and one that wants a file that is gone; the next one comes") {
  const Fixture f({4, 7});
  std::filesystem::remove(f.folder / "p2.JPEG");
  StreamOptions plain = options(2);
  plain.shuffle = false;
  plain.rows = {4, 7, 4, 0, 2, 7, 0, 7, 1};
  plain.batch = 3;
  plain.until = 3;
  PictureStream stream(f.set, plain);
  CHECK_THROWS({ stream.take(); }, "corrupt-file", {"none of the 3", "batch 0", "p4.JPEG"});
  CHECK_THROWS({ stream.take(); }, "io", {"p2.JPEG"});
  const auto c = stream.take();
  CHECK_EQUAL(c->rows, (std::vector<int32_t>{0, 1, 1}));
  CHECK_EQUAL(c->failures.size(), size_t{1});
  CHECK(c->failures[0].why.find("p7.JPEG") != std::string::npos);
}

TEST("no more batches are made than may be ahead") {
  const Fixture f;
  PictureLoader loader(f.set, options(2, 2).loader);
  loader.request({.step = 0, .rows = {0, 1}});
  loader.request({.step = 1, .rows = {2}});
  CHECK(loader.full());
  CHECK_THROWS({ loader.request({.step = 2, .rows = {3}}); }, "busy", {"2 batches"});
  CHECK_EQUAL(loader.take()->step, int64_t{0});
  CHECK(!loader.full());
  CHECK_THROWS({ loader.request({.step = 2, .rows = {}}); }, "invalid-argument", {"no examples"});
  CHECK_THROWS({ loader.request({.step = 2, .rows = {23}}); }, "invalid-argument", {"row 23"});
  CHECK_EQUAL(loader.take()->step, int64_t{1});
  CHECK_THROWS({ loader.take(); }, "invalid-argument", {"no batch"});
}

TEST("a batch is its holder's, longer than its loader if need be; then its memory is used again") {
  const Fixture f;
  const auto even = [](int threads) {
    StreamOptions o = options(threads, 2);
    o.rows.resize(18);  // batches of one size
    return o;
  };
  std::shared_ptr<const PictureBatch> held;
  std::vector<Taken> expected;
  {
    PictureStream stream(f.set, even(2));
    expected = all_of(stream);
  }
  {
    PictureStream stream(f.set, even(3));
    held = stream.take();
    std::set<const uint8_t*> places;
    for (size_t step = 1; step < 12; ++step) {
      const auto batch = stream.take();
      CHECK(batch->images.get() != held->images.get());
      CHECK(taken(*batch) == expected[step]);
      places.insert(batch->images.get());
    }
    CHECK(places.size() <= 5);  // two that are made, two that are kept, the one at hand
    CHECK(taken(*held) == expected[0]);
  }
  CHECK(taken(*held) == expected[0]);
}

TEST("memory of batches: given back, kept up to a number, taken where it is large enough") {
  const auto memory = BatchMemory::create(2);
  const size_t large = (size_t{4} << 20) + 123;
  std::vector<BatchMemory::Bytes> held;
  for (int i = 0; i < 4; ++i) {
    held.push_back(memory->take(large));
    std::memset(held.back().get(), i, large);
  }
  const uint8_t* const last = held.back().get();
  held.pop_back();
  CHECK_EQUAL(memory->kept(), size_t{1});
  held.push_back(memory->take(100));
  CHECK(held.back().get() == last);
  CHECK_EQUAL(memory->kept(), size_t{0});
  CHECK(held[0][large - 1] == 0 && held[1][0] == 1 && held[2][large / 2] == 2);
  held.clear();
  CHECK_EQUAL(memory->kept(), size_t{2});
  const auto larger = memory->take(2 * large);  // those that are kept are too small from now on
  CHECK_EQUAL(memory->kept(), size_t{0});
  std::memset(larger.get(), 1, 2 * large);
}

TEST("memory of batches comes back from any thread, and goes to the system where its owner is gone") {
  auto memory = BatchMemory::create(3);
  std::atomic<bool> whole{true};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([mine = memory, t, &whole] {
      for (size_t i = 0; i < 500; ++i) {
        const auto bytes = mine->take(64 + i % 50);
        std::memset(bytes.get(), t, 64 + i % 50);
        if (bytes[0] != t || bytes[63 + i % 50] != t) whole = false;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  threads.clear();
  CHECK(whole.load());
  CHECK(memory->kept() <= 3);
  const auto orphan = memory->take(1000);
  memory.reset();
  orphan[999] = 7;
  CHECK(orphan[999] == 7);
}

TEST("memory of batches of another source goes back to it, kept, too small, or without an owner") {
  struct Counted final : MemorySource {
    mutable std::map<const uint8_t*, size_t> out;
    uint8_t* allocate(size_t size) const override {
      auto* bytes = new uint8_t[size];
      out[bytes] = size;
      return bytes;
    }
    void release(uint8_t* bytes, size_t size) const noexcept override {
      CHECK_EQUAL(out.at(bytes), size);
      out.erase(bytes);
      delete[] bytes;
    }
  };
  const Counted source;
  const auto& out = source.out;
  auto memory = BatchMemory::create(1, &source);
  auto one = memory->take(100), other = memory->take(200);
  CHECK_EQUAL(out.size(), size_t{2});
  one.reset();
  other.reset();
  CHECK_EQUAL(out.size(), size_t{1});
  auto larger = memory->take(1000);
  CHECK_EQUAL(out.size(), size_t{1});
  larger.reset();
  auto orphan = memory->take(10);
  CHECK_EQUAL(out.at(orphan.get()), size_t{1000});
  memory.reset();
  CHECK_EQUAL(out.size(), size_t{1});
  orphan.reset();
  CHECK(out.empty());
}

TEST("stopping from another thread ends who waits, and joins the workers in the middle of their work") {
  const Fixture f;
  for (int round = 0; round < 20; ++round) {
    PictureStream stream(f.set, options(4, 3));
    std::atomic<int> got{0};
    std::thread stopper([&] {
      while (got.load() < round % 4) std::this_thread::yield();
      stream.loader().stop();
    });
    bool stopped = false;
    try {
      for (int step = 0; step < 12; ++step) {
        stream.take();
        ++got;
      }
    } catch (const Error& error) {
      stopped = error.code() == "disposed";
    }
    stopper.join();
    CHECK(stopped || got.load() == 12);
    CHECK_THROWS({ stream.loader().try_take(); }, "disposed", {"stopped"});
  }
}

TEST("who does not wait is told when a batch is there") {
  const Fixture f;
  PictureStream stream(f.set, options(2));
  stream.fill();
  while (!stream.loader().ready()) stream.loader().wait(std::chrono::milliseconds(50));
  const auto batch = stream.loader().try_take();
  CHECK(batch && batch->step == 0);
}

TEST("names and labels must fit") {
  CHECK_THROWS({ PictureSet("/", std::string("a\0b\0", 4), {0}, 1, ""); }, "invalid-argument", {"2 names, 1 labels"});
  CHECK_THROWS({ PictureSet("/", "a", {0}, 1, ""); }, "invalid-argument", {"zero byte"});
  CHECK_THROWS({ PictureSet("/", std::string("a\0", 2), {1}, 1, ""); }, "invalid-argument", {"label 0 is 1"});
}
