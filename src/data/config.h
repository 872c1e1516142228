#pragma once

#include <string>
#include <vector>

namespace switchyard {

// One token file of a blend.
struct DataSource {
  std::string path;  // prefix of PATH.bin and PATH.idx
  double weight = 1;

  template <class V>
  void describe(V& v) {
    v.field("path", path, "prefix of a token file's .bin and .idx").required();
    v.field("weight", weight, "share of the samples, relative to the other sources").between(0, 1e12);
  }
};

struct DataConfig {
  std::vector<DataSource> train;
  std::vector<DataSource> valid;

  template <class V>
  void describe(V& v) {
    v.list("train", train, "token files to train on");
    v.list("valid", valid, "token files to evaluate on; may be empty");
  }
};

}  // namespace switchyard
