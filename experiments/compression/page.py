"""Students of MiniLM on SST-2: what they keep, what they cost."""

import tables


def page(lines: list[dict], folder) -> str:
    text = "# Compression\n\nMiniLM fine-tuned on SST-2 into smaller students on the same rows, judged on the validation rows.\n"
    teacher = next((line for line in lines if line["key"] == "teacher"), None)
    if teacher is None:
        return text
    all_rows = teacher["flips"]["rows"]
    text += f"Trained on `{teacher['rows']}`; {all_rows} rows to judge by, so one row is {100 / all_rows:.2f} points. One seed.\n\n"
    rows = []
    accuracy_of_teacher = right(teacher) / all_rows
    for line in lines:
        accuracy = right(line) / all_rows
        flips = line["flips"]
        rows.append(
            [
                line["key"],
                f"{line['layers']} × {line['width']}",
                f"{line['parameters'] / 1e6:.1f} M",
                f"{line['bytes'] / 2**20:.0f} MiB",
                f"{line['speed_up']:.2f}",
                f"{100 * accuracy:.1f}",
                f"{100 * accuracy / accuracy_of_teacher:.1f}",
                f"{100 * flips['changed'] / all_rows:.1f}",
                f"{100 * flips['negative'] / all_rows:.1f}",
            ]
        )
    head = ["", "layers × width", "parameters", "size", "times as fast", "accuracy %", "of the teacher's %", "churn %", "negative flips %"]
    text += tables.table(head, rows)
    text += (
        "\nChurn and negative flips are against the teacher. Speed is of scoring 10,000 texts, the best of three turns each. Words are"
        "\nmost of MiniLM's parameters, which is why fewer layers shrink the file less than the time.\n"
    )
    return text


def right(line: dict) -> int:
    return line["flips"]["both_right"] + line["flips"]["positive"]
