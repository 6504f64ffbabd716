// The safetensors format, written and read.
#include <cstring>

#include "check.h"
#include "core/safetensors.h"

using namespace lth;
using test::Folder;

namespace {

std::string text_of(const std::string& path) {
  const auto read = read_file(path, 1 << 20);
  return {reinterpret_cast<const char*>(read.data()), read.size()};
}

void put(const std::string& path, const std::string& header, const std::string& body, int64_t length = -1) {
  const uint64_t n = length < 0 ? header.size() : static_cast<uint64_t>(length);
  std::string all;
  for (int i = 0; i < 8; ++i) all += static_cast<char>(n >> (8 * i));
  all += header + body;
  write_atomically(path, {std::as_bytes(std::span(all))});
}

const std::string kOne = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

}  // namespace

TEST("the bytes written are the format's, and the same each time") {
  const Folder folder;
  const float w[] = {1, -2};
  const std::byte b[] = {std::byte{1}, std::byte{0}, std::byte{1}};
  const std::vector<TensorOut> tensors = {{"w", "F32", {2, 1}, std::as_bytes(std::span(w))},
                                          {"m", "BOOL", {3}, b}};
  write_safetensors(folder / "a", tensors, {{"z", "1"}, {"a\"\\\n", "\xc3\xa9"}});
  const std::string header = R"({"__metadata__":{"a\"\\\u000a":")"
                             "\xc3\xa9"
                             R"(","z":"1"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                             R"("m":{"dtype":"BOOL","shape":[3],"data_offsets":[8,11]}})";
  const std::string file = text_of(folder / "a");
  const size_t padded = (header.size() + 7) / 8 * 8;
  CHECK_EQUAL(
      static_cast<size_t>(static_cast<unsigned char>(file[0])) + 256u * static_cast<unsigned char>(file[1]),
      padded);
  CHECK_EQUAL(file.substr(8, header.size()), header);
  CHECK_EQUAL(file.substr(8 + header.size(), padded - header.size()),
              std::string(padded - header.size(), ' '));
  CHECK_EQUAL(file.size(), 8 + padded + 11);
  write_safetensors(folder / "b", tensors, {{"a\"\\\n", "\xc3\xa9"}, {"z", "1"}});
  CHECK(text_of(folder / "b") == file);
}

TEST("what was written is read back") {
  const Folder folder;
  const double w[] = {1.5, -0.0, 3e300};
  write_safetensors(folder / "f",
                    {{"a.weight", "F64", {3, 1}, std::as_bytes(std::span(w))},
                     {"none", "F32", {0, 7}, {}},
                     {"scalar", "F32", {}, std::as_bytes(std::span(w)).first(4)}},
                    {{"key \t", "val\\ue"}});
  const SafetensorsFile file(folder / "f");
  CHECK_EQUAL(file.tensors().size(), 3u);
  CHECK_EQUAL(file.metadata().at("key \t"), "val\\ue");
  const TensorIn& in = file.tensors().at("a.weight");
  CHECK_EQUAL(in.shape, std::vector<int64_t>{3, 1});
  CHECK_EQUAL(in.dtype, "F64");
  double back[3];
  file.read(in, std::as_writable_bytes(std::span(back)));
  CHECK(std::memcmp(back, w, sizeof w) == 0);
  CHECK_EQUAL(file.tensors().at("none").bytes, 0u);
  CHECK_EQUAL(file.tensors().at("scalar").bytes, 4u);
}

TEST("tensors that could not be read back are not written") {
  const Folder folder;
  const float w[] = {1, 2};
  const auto bytes = std::as_bytes(std::span(w));
  CHECK_THROWS({ write_safetensors(folder / "f", {{"w", "F32", {3}, bytes}}, {}); }, "invalid-argument",
               {"w", "8 bytes", "12"});
  CHECK_THROWS({ write_safetensors(folder / "f", {{"w", "F32", {2}, bytes}, {"w", "F32", {2}, bytes}}, {}); },
               "invalid-argument", {"twice"});
  CHECK_THROWS({ write_safetensors(folder / "f", {{"__metadata__", "F32", {2}, bytes}}, {}); },
               "invalid-argument", {});
  CHECK_EQUAL(folder.files(), 0);
}

TEST("another writer's layout is read: spaces, escapes, any order, empty tensors in one place") {
  const Folder folder;
  put(folder / "f",
      " { \"b\" : {\"shape\":[ 1 ],\"data_offsets\":[4,8] "
      ",\"dtype\":\"F32\"},\n\"\\u0061\\uD83D\\uDE00\":{\"dtype\":\"F32\","
      "\"shape\":[1],\"data_offsets\":[0,4]},\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}  "
      " ",
      "aaaabbbb");
  const SafetensorsFile file(folder / "f");
  std::string b(4, ' ');
  file.read(file.tensors().at("b"), std::as_writable_bytes(std::span(b)));
  CHECK_EQUAL(b, "bbbb");
  CHECK(file.tensors().count("a\xF0\x9F\x98\x80") == 1);
}

TEST("a broken file is an error that names the file and the place") {
  const Folder folder;
  const std::string path = folder / "f";
  const auto refused = [&](const std::string& header, const std::string& body,
                           const std::vector<std::string>& parts, int64_t length = -1) {
    put(path, header, body, length);
    std::vector<std::string> all = parts;
    all.push_back("[safetensors] " + path + ": ");
    test::check_throws([&] { SafetensorsFile file(path); }, "corrupt-file", all, header.c_str(), __LINE__);
  };
  put(path, kOne, "12345678");
  const SafetensorsFile fine(path);
  const std::string whole = text_of(path);
  for (size_t n = 0; n < whole.size(); ++n) {  // every truncation
    write_atomically(path, {std::as_bytes(std::span(whole).first(n))});
    CHECK_THROWS({ SafetensorsFile file(path); }, "corrupt-file", {path});
  }
  refused(kOne, "123456789", {"8 bytes", "9"});
  refused(kOne, "12345678", {"claims 72057594037927936 bytes"}, int64_t{1} << 56);
  refused(kOne, "12345678", {"claims 9223372036854775807"}, INT64_MAX);
  refused(kOne, "12345678", {"claims"}, 1000);
  refused("", "12345678", {"expected '{'", "byte 8"});
  refused("{", "", {"byte 9"});
  refused("[]", "", {"expected '{'"});
  refused("{} x", "", {"byte 11", "behind"});
  refused(R"({"w":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", "12345678", {"F33"});
  refused(R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "12345678", {"w", "12 bytes"});
  refused(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "12345678", {"data_offsets"});
  refused(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "12345678", {"data_offsets"});
  refused(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"dtype":"F32"}})", "12345678", {"twice"});
  refused(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", "12345678", {"more"});
  refused(R"({"w":{"dtype":"F32","shape":[2]}})", "12345678", {"lacks"});
  refused(R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "12345678", {"whole number"});
  refused(R"({"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "12345678", {"']'"});
  refused(R"({"w":{"dtype":"F32","shape":[02],"data_offsets":[0,8]}})", "12345678", {"leading zero"});
  refused(R"({"w":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})", "12345678",
          {"too large"});
  refused(R"({"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", "12345678",
          {"too large"});
  refused(R"({"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}})", "12345678",
          {"too large"});
  refused(R"({"w":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", "12345678", {"whole number"});
  refused(R"({"__metadata__":{"a":{"b":"c"}}})", "", {"expected '\"'"});
  refused(R"({"__metadata__":{"a":"b)", "", {"without end"});
  refused(R"({"__metadata__":{"a":"\q"}})", "", {"escape"});
  refused(R"({"__metadata__":{"a":"\ud800"}})", "", {"surrogate"});
  refused("{\"__metadata__\":{\"a\":\"b\nc\"}}", "", {"control character"});
  const std::string entry = R"("dtype":"F32","shape":[1],"data_offsets":)";
  refused("{\"a\":{" + entry + "[0,4]},\"b\":{" + entry + "[0,4]}}", "1234", {"overlap"});
  refused("{\"a\":{" + entry + "[0,4]},\"b\":{" + entry + "[8,12]}}", "123456789012",
          {"hole at data byte 4"});
  refused("{\"a\":{" + entry + "[4,8]}}", "12345678", {"hole at data byte 0"});
  refused(std::string(1000000, '['), "", {"expected '{'"});
  refused("{\"a\":" + std::string(1000000, '{') + "}", "", {"expected '\"'"});
}
