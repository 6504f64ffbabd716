// Scores of pruning at initialisation, or at any step (paper 4.2: SNIP, GraSP, SynFlow), through LibTorch's autograd and
// its second derivatives.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "exec/aten_batch.h"

namespace lth {

enum class ScoreMethod {
  kMagnitude,  // |w|
  kSnip,       // |w g|, g the gradient of the mean loss
  kGrasp,      // -w (H g); the highest are pruned
  kGraspAbs,   // |w (H g)|
  kSynflow,    // |w dR/dw|, R the sum of the outputs of the network of |w| on an input of ones
};

// By name, as in recipes: "grasp-abs".
ScoreMethod score_method(const std::string& name);
// Magnitude and SynFlow look at no example.
bool needs_examples(ScoreMethod method);

// Scores of the store's weights, an fp64 arena with zeros at whatever is not prunable, computed in double precision:
// networks with batch norm turn single roundings into other masks. `next`: the batch that comes next, until there is
// none; absolute values are taken per batch, and the batches' scores averaged. The forward is that of training
// (statistics of the batch); SynFlow's that of evaluation, of absolute values of all there is: weights, biases, scales
// and shifts of batch norm, running statistics. The store stays as it is.
at::Tensor scores(ScoreMethod method, const ParameterStore& store, const Normaliser& normaliser,
                  const std::function<std::optional<Batch>()>& next);

}  // namespace lth
