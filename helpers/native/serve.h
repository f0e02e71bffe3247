/* SPDX-License-Identifier: GPL-2.0-only */
/* A thread that serves a subject's own userfaultfd, so that a batch can fault. */
#include <stdint.h>

int serve_messages(const uint64_t *argument);
int messages_served(void);
void served_by_another(void);
