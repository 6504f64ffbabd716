// What the kernels of this folder are given: read by NVRTC, by the C++ that launches them and by the test that emulates them,
// so it includes nothing. Images are NHWC in bf16: P places (of all examples) of C channels, C innermost.
#pragma once

namespace lth::device {

typedef unsigned short Bf16;  // its bits

constexpr int kThreads = 256;
constexpr int kVector = 8;        // channels that a thread reads at a time: 16 bytes
constexpr int kSums = 2 * kVector;
constexpr int kMostVectors = 8;  // of a block's channels

// y (P, C) = max((x - mean) / deviation * gamma + beta [+ other], 0), or without max.
struct Normalise {
  const Bf16* x;
  const Bf16* other;  // or null
  Bf16* y;
  long long places;
  int channels, relu;
  float epsilon, momentum;
  const float* gamma;
  const float* beta;
  float* running_mean;  // or null: the running statistics stay as they are
  float* running_variance;
  float* mean;               // (C) of the batch
  float* inverse_deviation;  // (C)
  float* partial;            // (grid's x, C / kVector, kSums)
  unsigned* barrier;         // (grid's y, 2) 0 before the first kernel
};

// Of the same. The gradient of y is d0, or d0 + d1.
struct NormaliseBackward {
  const Bf16* d0;
  const Bf16* d1;  // or null
  const Bf16* x;
  const Bf16* y;  // or null, where there is no ReLU
  Bf16* dx;
  Bf16* d_other;  // or null
  long long places;
  int channels;
  const float* gamma;
  const float* mean;
  const float* inverse_deviation;
  float* d_gamma;
  float* d_beta;
  float* partial;
  unsigned* barrier;
};

// Of log-softmax and cross-entropy: logits (N, classes).
struct Loss {
  const float* logits;
  const long long* labels;
  float* d_logits;   // (softmax - onehot) / N
  double* measured;  // (2) sum of the examples' losses; examples that are right
  float* loss_of;    // (N) workspace
  int* right;        // (N) workspace
  unsigned* done;  // (1) 0 before and after
  int examples, classes;
};

// Examples of a data set as a batch: x (N, H, W, C) = byte * scale + shift, cropped and flipped.
struct Assemble {
  const unsigned char* images;  // (rows, C, H, W)
  const long long* labels;      // (rows)
  const int* where;             // (4, N) row, dy, dx, flip
  const float* scale;           // (C)
  const float* shift;
  Bf16* x;
  long long* labels_out;  // (N)
  int examples, channels, height, width, cropped;
};

// Weights of a convolution (K, C, taps) in fp32 as (K, taps, C) in bf16, and as those of the convolution that makes the
// gradient of its input: (C, taps from the last to the first, K).
struct Weights {
  const float* from;
  Bf16* to;
  Bf16* back;  // or null
  int units, channels, taps;
  int first_block;  // of those that turn this one; a block turns kThreads * kPerThread
};
constexpr int kPerThread = 4;
struct TurnWeights {
  const Weights* entries;
  int count;
};

// y (N, out H, out W, K) = x (N, H, W, C) * w (K, 3 x 3 or 1, C), by bands of rows.
constexpr int kConvolveChannels = 16;        // in and out, at most
constexpr int kConvolveSpace = 24 * 1024;  // bytes of shared memory: a band of x, 16 channels a place
struct Convolve {
  const Bf16* x;
  const Bf16* weights;
  Bf16* y;
  int examples, channels, units;
  int height, width, out_height, out_width;
  int padding_h, padding_w;
  int band, bands;              // rows of y in a band; bands of an example
  int band_height, band_width;  // of the x that a band reads
};

// The gradient of a convolution's weights, dW (K, C, R, S) = sum over places of dy (K) x (C, at the tap), by tensor cores: a
// block sums a tile of 16 KT units and 16 CT channels, of up to kTaps taps, over some bands of rows.
constexpr int kTaps = 9;
constexpr int kSpace = 46 * 1024;  // bytes of shared memory: a band of x and of dy, 16 CT and 16 KT channels a place
constexpr int kPadding = 8;        // channels more, so that eight places of a matrix lie in different banks
struct WeightGradient {
  const Bf16* x;   // (N, H, W, C)
  const Bf16* dy;  // (N, out H, out W, K)
  float* partial;  // (grid's x, taps, K, C)
  int examples, channels, units;
  int height, width, out_height, out_width;
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
  int band, bands;          // rows of dy in a band; bands of an example
  int band_height, band_width;  // of the x that a band reads
};
// The sums of the blocks, in their order, to the gradients (K, C, taps).
struct Join {
  const float* partial;
  float* gradient;
  int blocks, units, channels, taps;
  int first_block;  // a block joins kJoined
};
constexpr int kJoined = 32;
struct JoinGradients {
  const Join* entries;
  int count;
};

// One update of SGD; of pruned weights nothing changes.
struct Sgd {
  float* weights;
  const float* gradients;
  float* momentum;  // or null
  const unsigned char* keep;
  long long size;
  float rate, factor, decay;  // factor: of the momentum
  int nesterov;
  const unsigned char* decayed;  // what weight decay is for, or null: everything
};

}  // namespace lth::device
