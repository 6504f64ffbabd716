// What the kernels of this folder are given: read by NVRTC, by the C++ that launches them and by the test that emulates them,
// so it includes nothing. Images are NHWC in bf16: P places (of all examples) of C channels, C innermost.
#pragma once

namespace lth::device {

typedef unsigned short Bf16;  // its bits

constexpr int kThreads = 256;
constexpr int kVector = 8;        // channels that a thread reads at a time: 16 bytes
constexpr int kSums = 2 * kVector;
constexpr int kPassed = 8;  // that a block of a pass has

// Of a batch norm: what it makes y = x scale + offset of, and the running statistics.
struct Moments {
  const Bf16* x;
  long long places;
  int channels;
  float epsilon, momentum;
  const float* gamma;
  const float* beta;
  float* running_mean;  // at momentum 0 the running statistics stay as they are
  float* running_variance;
  float* mean;               // (C) of the batch
  float* inverse_deviation;  // (C)
  float* scale;              // (C)
  float* offset;             // (C)
  float* partial;            // of each block's sums
  unsigned* done;            // (grid's y) 0 before and after
};

// y (P, C) = max(x scale + offset [+ other], 0), or without max.
struct Normalise {
  const Bf16* x;
  const Bf16* other;  // or null
  Bf16* y;
  long long places;
  int channels, relu;
  const float* scale;
  const float* offset;
};

// The gradient d of the sum before ReLU is d0, or d0 + d1, where y is above 0: of a sum of one term that is x scale + offset,
// and y need not be read. Without ReLU neither is there.
struct OfBatchNorm {
  const Bf16* d0;
  const Bf16* d1;  // or null
  const Bf16* y;   // or null
  const Bf16* x;
  long long places;
  int channels;
  const float* scale;   // (C), or null
  const float* offset;  // (C)
};

// What dx is made of, and the gradients of scale and shift.
struct GradientMoments {
  OfBatchNorm of;
  Bf16* d_other;  // d, or null
  const float* gamma;
  const float* mean;
  const float* inverse_deviation;
  float* d_gamma;
  float* d_beta;
  float* of_d;  // (C)
  float* of_x;  // (C)
  float* offset;  // (C)
  float* partial;
  unsigned* done;
};

// dx = of_d d + of_x x + offset
struct NormaliseBackward {
  OfBatchNorm of;
  Bf16* dx;
  const float* of_d;
  const float* of_x;
  const float* offset;
};

// What dropout keeps of a layer's elements, of each example: core/random.h's words, one for each element, of which those below
// `dropped` drop theirs.
struct Drop {
  const int* rows;      // (N) of the data set
  unsigned char* kept;  // (N, elements) 0 or 1
  long long elements;
  int examples;
  unsigned key[2];
  unsigned epoch, layer;
  unsigned dropped;
};

// Windows over images, cut off where they end.
struct Windows {
  int examples, channels, height, width, out_height, out_width;
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
};
// y (N, out H, out W, C) = each window's largest of x (N, H, W, C), the first of those, and its number in the window.
constexpr int kMostTaps = 256;  // of a window
struct MaxPool {
  const Bf16* x;
  Bf16* y;
  unsigned char* which;  // (N, out H, out W, C)
  Windows windows;
};
struct MaxPoolBackward {
  const Bf16* dy;
  const unsigned char* which;
  Bf16* dx;
  Windows windows;
};

// y (N, C) = the mean of x (N, P, C) over its P places. C is a multiple of kVector.
constexpr int kPooled = 32;  // vectors of an example that a block has
struct Pool {
  const Bf16* x;
  float* y;
  int places, channels;
};
struct PoolBackward {
  const float* dy;  // (N, C)
  Bf16* dx;         // (N, P, C)
  int examples, places, channels;
};

// y (N, K) = x (N, C) weights (K, C) + bias (K), and the gradients of weights and bias, and of x.
struct Linear {
  const float* x;
  const float* weights;
  const float* bias;  // or null
  float* y;
  int examples, channels, units;
};
constexpr int kGradients = 32;  // channels that a block has
struct LinearGradient {
  const float* x;
  const float* dy;
  float* d_weights;
  float* d_bias;  // or null
  int examples, channels, units;
};
struct LinearBackward {
  const float* dy;
  const float* weights;
  float* dx;
  int examples, channels, units;
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

// A convolution of stride 2 over a few channels is one of stride 1 over images that are folded: a folded place has 2 x 2 places of
// the image, the first of which is (-padding, -padding), of each kFoldedChannels channels. What lies beyond the image or behind
// the last channel is 0. Tensor cores and their loads want many channels.
constexpr int kFoldedChannels = 4, kFolded = 4 * kFoldedChannels;
struct AssembleFolded {
  Assemble of;  // with x (N, height, width, kFolded)
  int height, width;
  int padding_h, padding_w;
};
// Its weights (K, C, kernel) in fp32, to (K, folded kernel, kFolded) in bf16, and a gradient back.
struct FoldedWeights {
  int units, channels, kernel_h, kernel_w;
};
struct FoldWeights {
  FoldedWeights of;
  const float* from;
  Bf16* to;
};
struct UnfoldGradient {
  FoldedWeights of;
  const Bf16* from;
  float* to;
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
constexpr int kConvolveChannels = 32;      // in and out, at most
constexpr int kConvolveSpace = 24 * 1024;  // bytes of shared memory: a band of x, 16 or 32 channels a place
struct Convolve {
  const Bf16* x;
  const Bf16* weights;
  Bf16* y;
  int examples, channels, units;
  int height, width, out_height, out_width;
  int padding_h, padding_w;
  int band, bands;              // rows of y in a band; bands of an example
  int band_height, band_width;  // of the x that a band reads
  int sums_up;                  // whether `moments`, of the batch norm that reads y, are made too
  Moments moments;              // with no x
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
constexpr int kJoined = 64;
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
