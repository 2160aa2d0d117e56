#include "train/stop_signals.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <csignal>

namespace mhmoe::train {
namespace {

TEST(StopSignals, TheFirstIsNotedAndTheSecondEndsTheProcess) {
  for (const int signal : {SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          const StopSignals signals;
          if (StopSignals::received() != 0) _exit(1);
          raise(SIGTERM);
          if (StopSignals::received() != SIGTERM) _exit(2);
          raise(signal);  // at once: the same request again
          usleep(600'000);
          raise(signal);
          _exit(3);
        },
        testing::ExitedWithCode(128 + signal), "asked to stop");
  }
}

TEST(StopSignals, ARepeatedUserSignalIsTheSameRequest) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        raise(SIGUSR1);
        usleep(600'000);
        raise(SIGUSR1);
        _exit(StopSignals::received());
      },
      testing::ExitedWithCode(SIGUSR1), "asked to stop");
}

TEST(StopSignals, OneInsideAnotherKeepsWhatWasNoted) {
  EXPECT_EXIT(
      {
        const StopSignals outer;
        {
          const StopSignals inner;
          raise(SIGUSR1);
        }
        const StopSignals next;
        _exit(StopSignals::received());
      },
      testing::ExitedWithCode(SIGUSR1), "asked to stop");
}

TEST(StopSignals, AfterwardsSignalsDoWhatTheyDidBefore) {
  EXPECT_EXIT(
      {
        { const StopSignals signals; }
        raise(SIGTERM);
        _exit(0);
      },
      testing::KilledBySignal(SIGTERM), "");
}

TEST(StopSignals, HaveNames) {
  EXPECT_EQ(signal_name(SIGTERM), "SIGTERM");
  EXPECT_EQ(signal_name(SIGUSR1), "SIGUSR1");
}

}  // namespace
}  // namespace mhmoe::train
