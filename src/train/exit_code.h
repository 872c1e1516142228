#pragma once

#include "tensor/error.h"

namespace switchyard {

struct ExitCode {
  int code;
  const char* meaning;
};

inline constexpr int exit_done = 0;
inline constexpr int exit_stopped = 75;  // sysexits.h's EX_TEMPFAIL: a scheduler may start the job again
inline constexpr int exit_alarmed = 76;  // for a person to look at first

// What the program's exit status means; an Error's is its Fault.
inline constexpr ExitCode exit_codes[] = {
    {exit_done, "done"},
    {static_cast<int>(Fault::internal), "a fault of the program itself"},
    {static_cast<int>(Fault::usage), "command line or configuration"},
    {static_cast<int>(Fault::data), "a corpus, tokenizer or token file; metrics.jsonl or config.yaml on a full disk"},
    {static_cast<int>(Fault::checkpoint), "a checkpoint is damaged, foreign or missing"},
    {static_cast<int>(Fault::numeric), "the loss or a gradient is not finite"},
    {static_cast<int>(Fault::memory), "no memory left on the device"},
    {static_cast<int>(Fault::communication), "ranks disagree, or one is gone"},
    {exit_stopped, "stopped by a signal after saving; the same command resumes"},
    {exit_alarmed, "stopped by an alarm after saving; look first, then the same command resumes"},
};

}  // namespace switchyard
