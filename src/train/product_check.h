// Whether this machine's products keep what parallel.width_invariant rests on. Between layouts differ the number of
// threads of a rank, and which experts' rows share a product with whose; the rows of one micro-batch, and those that it
// has for one expert, are the same everywhere.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "ops/op_call.h"
#include "train/rank_agreement.h"

namespace mhmoe::train {

// Collects the products of a sizing pass, one of each shape: it is told of them as the layers dispatch them.
class ProductShapes final : public WorkObserver {
 public:
  using Product = std::variant<ops::Matmul, ops::AttentionForward, ops::AttentionBackward, ops::GroupedMatmul,
                               ops::GroupedWeightGrad>;

  void begin(const ops::OpCall& call) override;
  void begin_fill(const Tensor& /*dst*/) override {}
  void begin_copy(const Tensor& /*dst*/, const Tensor& /*src*/) override {}
  void end() override {}

  // By what a message calls them; their tensors are shapes alone.
  const std::map<std::string, Product>& all() const { return products_; }

 private:
  std::map<std::string, Product> products_;
};

// Computes every product on random data with this program's threads and with one; of experts' products also some
// experts alone, elsewhere in their buffer. Throws Error(kConfig) that names a product whose bits differ, and when.
// Returns what has to be equal on all ranks of a job: the results' hashes. `ctx` holds the tensors of one at a time.
std::vector<Compared> check_products(Context& ctx, const ProductShapes& shapes);

}  // namespace mhmoe::train
