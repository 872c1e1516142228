#include "tensor/profile.h"

#include <algorithm>
#include <array>
#include <chrono>

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kDeviceTypes = 2;

// What the running profile of a thread has seen; static functions in a table have nowhere else to put it.
struct Account {
  Profile* profile = nullptr;
  std::array<const Kernels*, kDeviceTypes> backends{};  // by type of device
  std::array<Device, kDeviceTypes> devices{};           // the last of each type that was asked for
  std::vector<KernelTime> rows;                         // by type of device, then by row
};
thread_local Account account;

template <auto Row>
struct Name {};

// FLOPs of a call; only rows that multiply have any.
template <auto Row, class... Args>
double flops(Name<Row>, const Args&...) {
  return 0;
}
double flops(Name<&Kernels::matmul>, const Tensor& c, const Tensor& a, const Tensor&, Trans ta, Trans, Into) {
  return 2.0 * static_cast<double>(c.numel()) * static_cast<double>(a.dim(ta == Trans::yes ? 0 : 1));
}
double flops(Name<&Kernels::weight_matmul>, const Tensor&, const Tensor& x, const Weight& w, Trans) {
  return 2.0 * static_cast<double>(x.dim(0)) * static_cast<double>(w.shape.numel());
}
double flops(Name<&Kernels::grouped_matmul>, const Tensor&, const Tensor& x, const Weight& w, const Tensor&,
             std::int64_t, Trans) {
  return 2.0 * static_cast<double>(x.dim(0)) * static_cast<double>(w.shape[1] * w.shape[2]);
}
double flops(Name<&Kernels::grouped_matmul_dw>, const Tensor& dw, const Tensor&, const Tensor& x, const Tensor&,
             std::int64_t, Into) {
  return 2.0 * static_cast<double>(x.dim(0)) * static_cast<double>(dw.dim(1) * dw.dim(2));
}
double causal_products(int products, AttentionShape s) {
  return static_cast<double>(products) * static_cast<double>(s.tokens() * (s.seq + 1) * s.n_heads * s.head_dim);
}
double flops(Name<&Kernels::attention>, const Tensor&, const Tensor&, const Tensor&, const Tensor&, AttentionShape s,
             RelativeBuckets) {
  return causal_products(2, s);
}
double flops(Name<&Kernels::attention_backward>, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
             const Tensor&, const Tensor&, const Tensor&, AttentionShape s, RelativeBuckets) {
  return causal_products(5, s);
}

template <class Function, auto Row, std::size_t Type, std::size_t Index>
struct Timed;
template <class... Args, auto Row, std::size_t Type, std::size_t Index>
struct Timed<void (*)(Args...), Row, Type, Index> {
  static void call(Args... args) {
    const auto begin = Clock::now();
    (account.backends[Type]->*Row)(args...);
    synchronize(account.devices[Type]);
    KernelTime& row = account.rows[Index];
    row.seconds += std::chrono::duration<double>(Clock::now() - begin).count();
    row.flops += flops(Name<Row>{}, args...);
    ++row.calls;
  }
};

template <auto Row, std::size_t Type, std::size_t Index, class Function>
constexpr Function timed_row(Function Kernels::*) {
  return &Timed<Function, Row, Type, Index>::call;
}

}  // namespace

// clang-format off
#define SY_EACH_KERNEL(row) \
  row(zero) row(copy) row(add) row(scale) row(matmul) row(pack) row(weight_matmul) row(grouped_matmul) \
  row(grouped_matmul_dw) row(rms_norm) row(rms_norm_backward) row(add_rms_norm) row(add_rms_norm_backward) \
  row(qk_norm_rope) row(qk_norm_rope_backward) row(attention) row(attention_backward) row(activation) \
  row(activation_backward) row(gather_rows) row(scatter_add_rows) row(combine_rows) row(combine_rows_backward) \
  row(scatter_ids) \
  row(softmax) row(softmax_backward) row(top_k) row(top_k_backward) row(count_choices) row(choice_fractions) \
  row(admit) row(place) row(balance_loss) row(balance_loss_backward) row(z_loss) row(z_loss_backward) row(entropy) \
  row(observe_routing) \
  row(choose) row(selection_scores) row(thin_choices) row(count_meetings) row(adjust_bias) row(admit_by_priority) \
  row(capped_scores) \
  row(sigmoid) row(sigmoid_backward) row(noisy_logits) row(noisy_logits_backward) row(choice_probability) \
  row(choice_probability_backward) row(squared_variation) row(cross_entropy) row(cross_entropy_part) \
  row(cross_entropy_whole) row(sum) row(uniform) row(normal) row(jitter) row(dropout) row(adamw) row(sum_squares) \
  row(clip_factor) row(square_means) row(moment_factors) row(update_squares) row(adafactor)
// clang-format on

namespace {

enum Index : std::size_t {
#define SY_INDEX(row) index_##row,
  SY_EACH_KERNEL(SY_INDEX)
#undef SY_INDEX
};

constexpr const char* kNames[] = {
#define SY_NAME(row) #row,
    SY_EACH_KERNEL(SY_NAME)
#undef SY_NAME
};

// A new row of the table must be listed here: all but the three that only handle memory are timed.
static_assert((std::size(kNames) + 3) * sizeof(void*) == sizeof(Kernels));

template <std::size_t Type>
constexpr Kernels timed_rows() {
  Kernels table{};
#define SY_TIMED(row) table.row = timed_row<&Kernels::row, Type, Type * std::size(kNames) + index_##row>(&Kernels::row);
  SY_EACH_KERNEL(SY_TIMED)
#undef SY_TIMED
  return table;
}

}  // namespace

const Kernels& Profile::timed(const Kernels& backend, Device device) {
  static constexpr Kernels kRows[kDeviceTypes] = {timed_rows<0>(), timed_rows<1>()};
  static thread_local Kernels tables[kDeviceTypes];
  const auto type = static_cast<std::size_t>(device.type);
  account.devices[type] = device;
  if (account.backends[type] != &backend) {
    account.backends[type] = &backend;
    tables[type] = kRows[type];
    tables[type].system_allocate = backend.system_allocate;
    tables[type].system_release = backend.system_release;
    tables[type].packed_size = backend.packed_size;
  }
  return tables[type];
}

Profile::Profile() : before_(account.profile) {
  account = {.profile = this, .backends = {}, .devices = {}, .rows = {}};
  for (const DeviceType type : {DeviceType::cpu, DeviceType::cuda})
    for (const char* name : kNames) account.rows.push_back({.name = name, .device = type});
}

Profile::~Profile() { account.profile = before_; }

std::vector<KernelTime> Profile::times() const {
  std::vector<KernelTime> rows;
  std::ranges::copy_if(account.rows, std::back_inserter(rows), [](const KernelTime& row) { return row.calls > 0; });
  std::ranges::sort(rows, std::greater(), &KernelTime::seconds);
  return rows;
}

Profile* current_profile() { return account.profile; }

}  // namespace switchyard
