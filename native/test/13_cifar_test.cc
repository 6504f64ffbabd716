// CIFAR's records and pickles, whole and broken.
#include <algorithm>

#include "check.h"
#include "data/cifar.h"
#include "pickles.h"

using namespace lth;

namespace {

const CifarLayout kTen{.classes = 10, .coarse = 0}, kHundred{.classes = 100, .coarse = 20};

std::vector<uint8_t> picture(int n) {
  std::vector<uint8_t> bytes(kCifarImage);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + static_cast<size_t>(n));
  return bytes;
}

std::vector<uint8_t> records(std::vector<std::vector<uint8_t>> labels) {
  std::vector<uint8_t> bytes;
  for (size_t n = 0; n < labels.size(); ++n) {
    const auto image = picture(static_cast<int>(n));
    bytes.insert(bytes.end(), labels[n].begin(), labels[n].end());
    bytes.insert(bytes.end(), image.begin(), image.end());
  }
  return bytes;
}

std::vector<uint8_t> pictures(int count, bool fortran) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count * kCifarImage));
  for (int n = 0; n < count; ++n) {
    const auto image = picture(n);
    for (size_t i = 0; i < image.size(); ++i)
      bytes[fortran ? i * static_cast<size_t>(count) + static_cast<size_t>(n)
                    : static_cast<size_t>(n * kCifarImage) + i] = image[i];
  }
  return bytes;
}

std::vector<uint8_t> pickle10(std::vector<int> labels, bool fortran = false) {
  const int count = static_cast<int>(labels.size());
  return test::Pickler()
      .key("labels").list(labels)
      .key("data").array(count, kCifarImage, fortran, pictures(count, fortran))
      .end();
}

template <typename F>
void refused(F&& read, std::vector<std::string> parts) {
  parts.push_back("[cifar] batch");
  test::check_throws(read, "corrupt-file", parts, __FILE__, __LINE__);
}

void refused_pickle(const std::vector<uint8_t>& bytes, std::vector<std::string> parts,
                    const CifarLayout& layout = kTen) {
  refused([&] { cifar_records({bytes, "batch"}, layout); }, std::move(parts));
}

}  // namespace

TEST("records of several files become one data set of (3,32,32)") {
  const auto one = records({{3}, {9}}), two = records({{0}});
  const CifarFile files[] = {{one, "one"}, {two, "two"}};
  const auto data = dataset_from_cifar(files, kTen);
  CHECK_EQUAL(data->count, 3);
  CHECK_EQUAL(data->shape, std::vector<int64_t>{3, 32, 32});
  CHECK_EQUAL(data->features, 3072);
  CHECK_EQUAL(data->classes, 10);
  CHECK_EQUAL(data->labels, std::vector<int32_t>{3, 9, 0});
  CHECK_EQUAL(data->mean.size(), 3u);
  const auto second = picture(1);
  CHECK(std::equal(second.begin(), second.end(), data->images.begin() + kCifarImage));
}

TEST("the label that counts is the fine one") {
  const auto bytes = records({{19, 99}, {0, 50}});
  const CifarFile file{bytes, "batch"};
  CHECK_EQUAL(dataset_from_cifar({&file, 1}, kHundred)->labels, std::vector<int32_t>{99, 50});
}

TEST("records that are cut, or have a label out of range, are named") {
  const auto read = [](const std::vector<uint8_t>& bytes, const CifarLayout& layout) {
    const CifarFile file{bytes, "batch"};
    dataset_from_cifar({&file, 1}, layout);
  };
  refused([&] { read({}, kTen); }, {"is empty"});
  auto cut = records({{1}, {2}});
  cut.pop_back();
  refused([&] { read(cut, kTen); }, {"6145 bytes", "3073"});
  refused([&] { read(records({{1}}), kHundred); }, {"3073 bytes", "3074"});
  refused([&] { read(records({{1}, {10}}), kTen); }, {"record 1: its label is 10, expected 0 to 9"});
  refused([&] { read(records({{1, 2}, {20, 3}}), kHundred); }, {"record 1: its coarse label is 20, expected 0 to 19"});
  refused([&] { read(records({{1, 100}}), kHundred); }, {"record 0: its fine label is 100, expected 0 to 99"});
}

TEST("a pickle gives the records of the binary layout, in either order of the array") {
  for (const bool fortran : {false, true}) {
    const auto bytes = pickle10({3, 9, 0}, fortran);
    CHECK(cifar_records({bytes, "batch"}, kTen) == records({{3}, {9}, {0}}));
  }
  const auto both = test::Pickler()
                        .key("fine_labels").list({99, 50})
                        .key("coarse_labels").list({19, 0})
                        .key("data").array(2, kCifarImage, false, pictures(2, false))
                        .end();
  CHECK(cifar_records({both, "batch"}, kHundred) == records({{19, 99}, {0, 50}}));
}

TEST("a pickle cut anywhere is refused") {
  const auto whole = pickle10({3});
  for (size_t n = 0; n < whole.size(); n += n > 120 && n + 200 < whole.size() ? 97 : 1)
    refused_pickle({whole.begin(), whole.begin() + static_cast<long>(n)}, {});
  auto longer = whole;
  longer.push_back('.');
  refused_pickle(longer, {"behind its end"});
}

TEST("what a pickle would have Python call is named and never called") {
  const auto text = [](const std::string& body) {
    std::vector<uint8_t> bytes = {0x80, 2};
    bytes.insert(bytes.end(), body.begin(), body.end());
    return bytes;
  };
  refused_pickle(text("cposix\nsystem\n(U\x04true\x85R."), {"byte 2", "posix system, which no CIFAR file has"});
  refused_pickle(text("cbuiltins\neval\nU\x01" "1\x85R."), {"builtins eval"});
  refused_pickle(text("(U\x01" "1iposix\nsystem\n."), {"opcode 0x69"});
  refused_pickle(text("(cposix\nsystem\nU\x01" "1o."), {"posix system"});
  refused_pickle(text("P0\n."), {"opcode 0x50"});
  refused_pickle(text("cnumpy\nndarray\n)R."), {"no numpy array"});
  refused_pickle(text("c" + std::string(500, 'a') + "\n\n."), {"a name without an end"});
  refused_pickle(text("c\x01\x02\nx\n."), {"names a global"});
}

TEST("pickles of other things, and numbers that promise much, are refused") {
  refused_pickle({0x80, 4, '}', '.'}, {"no pickle of protocol 2"});
  refused_pickle({0x80, 2, ']', '.'}, {"holds no dict"});
  refused_pickle({0x80, 2, '}', '.'}, {"no numpy array of bytes under data"});
  refused_pickle({0x80, 2, '.'}, {"other than one value"});
  refused_pickle({0x80, 2, 'T', 0xff, 0xff, 0xff, 0x7f, 'a'}, {"truncated"});
  refused_pickle({0x80, 2, 'e'}, {"wants a mark"});
  refused_pickle({0x80, 2, 'a'}, {"more values than there are"});
  refused_pickle({0x80, 2, ']', 's'}, {"more values than there are"});
  refused_pickle({0x80, 2, 'N', 'N', 'a'}, {"wants a list"});
  refused_pickle({0x80, 2, '}', 'K', 1, 'K', 2, 's', '.'}, {"a key that is no string"});
  refused_pickle({0x80, 2, 'h', 7}, {"empty place of the memo"});
  std::vector<uint8_t> many = {0x80, 2, '('};
  many.resize(3u << 20, 'N');
  refused_pickle(many, {"more than 1048576 values"});
  std::vector<uint8_t> gets = {0x80, 2, 'N', 'q', 0};
  for (int i = 0; i < 2 << 20; ++i) gets.insert(gets.end(), {'h', 0});
  refused_pickle(gets, {"more than 1048576 values"});
  refused_pickle(std::vector<uint8_t>(200, '('), {"protocol"});
  std::vector<uint8_t> deep = {0x80, 2};
  deep.resize(5000, '(');
  refused_pickle(deep, {"nested without end"});
}

TEST("pickles whose parts do not fit are refused by name and record") {
  const auto array = pictures(2, false);
  const auto with = [&](std::vector<int> labels) {
    return test::Pickler().key("labels").list(labels).key("data").array(2, kCifarImage, false, array).end();
  };
  refused_pickle(with({1}), {"2 pictures and 1 labels"});
  refused_pickle(with({1, 10}), {"record 1: its label is 10, expected 0 to 9"});
  refused_pickle(with({-1, 1}), {"record 0: its label is -1"});
  refused_pickle(with({1, 2}), {"holds no list coarse_labels"}, kHundred);
  refused_pickle(test::Pickler().key("labels").list({1}).key("data").list({1}).end(), {"no numpy array"});
  refused_pickle(test::Pickler().key("labels").list({1}).key("data").array(2, 5, false, {1, 2, 3}).end(),
                 {"a matrix of 10 elements holds 3 bytes"});
  refused_pickle(test::Pickler().key("labels").list({1}).key("data").array(2000000000, 2000000000, false, {1}).end(),
                 {"a matrix of 4000000000000000000 elements"});
  refused_pickle(test::Pickler().key("labels").list({1}).key("data").array(1, 3, false, {1, 2, 3}).end(),
                 {"pictures of 3 bytes, expected 3072"});
  const auto twice = test::Pickler().key("labels").list({1, 2}).key("labels").list({1, 2})
                         .key("data").array(2, kCifarImage, false, array).end();
  refused_pickle(twice, {"holds labels twice"});
}
