#include "train/memory_need.h"

#include "train/evaluation.h"
#include "train/trainer.h"

namespace mhmoe::train {

MemoryNeed measure_memory(const RunConfig& config, DeviceKind device, const ops::KernelTable* kernels, DType compute,
                          const comm::Layout& layout, const comm::GroupOptions& options, WorkObserver* observer) {
  const std::unique_ptr<Context> ctx = make_sizing_context(device, kernels);
  const comm::ParallelGroups groups = comm::make_sizing_groups(*ctx, layout, options);
  Trainer trainer(*ctx, config, compute, groups);
  ctx->set_work_observer(observer);
  trainer.step(HostBatch(trainer.local_sequences(), config.data.sequence_length));
  const HostBatch sequences(config.train.micro_batch_sequences, config.data.sequence_length);
  score_batch(*ctx, trainer.task(), config, sequences, config.model.moe.capacity_factor, groups.expert.get());
  score_batch(*ctx, trainer.task(), config, sequences, std::nullopt, groups.expert.get());
  return {.state_bytes = ctx->state().peak_bytes(),
          .step_bytes = ctx->step().peak_bytes(),
          .state_by_name = ctx->state().peak_by_name(),
          .step_by_name = ctx->step().peak_by_name()};
}

void reserve_memory(Context& ctx, const MemoryNeed& need) {
  ctx.state().reserve(need.state_bytes, need.state_by_name);
  ctx.step().reserve(need.step_bytes, need.step_by_name);
}

}  // namespace mhmoe::train
