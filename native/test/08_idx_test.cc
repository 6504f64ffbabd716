// IDX files, whole and broken.
#include "check.h"
#include "data/idx.h"

using namespace lth;

namespace {

std::vector<uint8_t> idx(uint32_t magic, std::vector<uint32_t> extents, size_t elements) {
  std::vector<uint8_t> bytes;
  const auto put = [&](uint32_t n) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<uint8_t>(n >> shift));
  };
  put(magic);
  for (const uint32_t n : extents) put(n);
  for (size_t i = 0; i < elements; ++i) bytes.push_back(static_cast<uint8_t>(i));
  return bytes;
}

}  // namespace

TEST("images and labels are read, without a copy") {
  const auto images = idx(0x803, {2, 3, 4}, 24), labels = idx(0x801, {5}, 5);
  const Idx x = parse_idx(images, 3, "images"), y = parse_idx(labels, 1, "labels");
  CHECK_EQUAL(x.shape, std::vector<int64_t>{2, 3, 4});
  CHECK_EQUAL(x.elements.size(), 24u);
  CHECK(x.elements.data() == images.data() + 16);
  CHECK_EQUAL(y.shape, std::vector<int64_t>{5});
  CHECK_EQUAL(static_cast<int>(y.elements[4]), 4);
}

TEST("broken files are errors that say what was found and what was wanted") {
  const auto refused = [](const std::vector<uint8_t>& bytes, int dimensions, std::vector<std::string> parts) {
    parts.push_back("[idx] train-images: ");
    test::check_throws([&] { parse_idx(bytes, dimensions, "train-images"); }, "corrupt-file", parts, __FILE__,
                       __LINE__);
  };
  refused({}, 3, {"empty"});
  refused({0, 0, 8}, 3, {"has 3 bytes", "16"});
  refused(idx(0x801, {5}, 5), 3, {"wrong magic 0x00000801", "0x00000803 (images, unsigned bytes)"});
  refused(idx(0x803, {1, 1, 1}, 1), 1, {"wrong magic 0x00000803", "0x00000801 (labels, unsigned bytes)"});
  refused(idx(0x1f8b0800, {1, 1, 1}, 1), 3, {"wrong magic 0x1f8b0800"});
  refused(idx(0x803, {1, 1}, 0), 3, {"has 12 bytes", "16"});
  refused(idx(0x803, {2, 3, 4}, 23), 3, {"truncated", "23", "24"});
  refused(idx(0x803, {2, 3, 4}, 25), 3, {"too long", "25", "24"});
  refused(idx(0x803, {0, 3, 4}, 0), 3, {"dimension 0 is 0"});
  refused(idx(0x803, {2, 3, 0}, 0), 3, {"dimension 2 is 0"});
  refused(idx(0x803, {0xffffffff, 1, 1}, 1), 3, {"4294967295 is too large"});
  refused(idx(0x803, {0x7fffffff, 0x7fffffff, 0x7fffffff}, 1), 3, {"too large"});
  refused(idx(0x803, {0x7fffffff, 0x7fffffff, 1}, 1), 3, {"truncated"});
  const auto whole = idx(0x803, {2, 3, 4}, 24);
  for (size_t n = 0; n < whole.size(); ++n)
    refused({whole.begin(), whole.begin() + static_cast<long>(n)}, 3, {});
}
