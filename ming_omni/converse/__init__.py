"""What somebody says, shows and writes -> spoken or written answers, turn by turn, with a memory that stays bounded."""
