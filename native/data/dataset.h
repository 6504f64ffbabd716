// Labelled examples as bytes: in memory, or pictures in files.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/picture_crop.h"
#include "data/picture_set.h"

namespace lth {

// Pictures in files, read when they are wanted, and what becomes of each.
struct FilePictures {
  std::shared_ptr<const PictureSet> set;
  CropRule training, evaluation;
  bool upright = false;  // apply EXIF's orientation
};

struct Dataset {
  int64_t count = 0;
  std::vector<int64_t> shape;  // of one example: (channels, height, width)
  int64_t features = 0;        // product of shape
  int classes = 0;
  std::string digest;  // of images and labels: what makes it this data set and no other
  std::vector<uint8_t> images;  // (count, features); of pictures in files: nothing
  std::optional<FilePictures> pictures;
  std::vector<int32_t> labels;  // in [0, classes)
  // Per channel mean and standard deviation of x/255 over all examples; of pictures in files: what it was given.
  std::vector<double> mean, std;
};

// From the unpacked bytes of an image and a label file; the names are what errors call them.
std::shared_ptr<Dataset> dataset_from_idx(std::span<const uint8_t> images, std::span<const uint8_t> labels,
                                                int classes, const std::string& images_name,
                                                const std::string& labels_name);

// From bytes in memory: images (N, shape...) and a label each; else Error("wrong-shape") or Error("invalid-argument").
std::shared_ptr<Dataset> dataset_from_bytes(std::span<const uint8_t> images, std::vector<int32_t> labels,
                                            std::vector<int64_t> shape, int classes);

// Of pictures that both crops make squares of one size; else Error("invalid-argument").
std::shared_ptr<Dataset> dataset_of_pictures(FilePictures pictures, std::vector<double> mean, std::vector<double> std);

// Fills `mean` and `std` from the images.
void measure_channels(Dataset& data);

struct Split {
  std::vector<int32_t> train, validation;  // rows of the data set, ascending
};

// Holds `validation` examples out, chosen by the seed alone: all replicates share the split. `subset` trains on so many of
// the others alone (0: all), taken in turns from the classes that have some left; a larger subset holds a smaller one.
Split split(const Dataset& data, int64_t validation, uint64_t seed, int64_t subset = 0);

}  // namespace lth
